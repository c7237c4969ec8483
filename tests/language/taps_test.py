"""Tests of hooks: reads agree with the equations, and edits act where they should and nowhere
else.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from aejax.errors import UserError
from aejax.language.edits import add, chain, mean, only, patch, zero
from aejax.language.llama import empty_cache
from aejax.language.reading import reader
from aejax.language.taps import HOOKS, Taps
from tests.language import cases

SLOW_SCAN = [False, pytest.param(True, marks=pytest.mark.slow)]
ALL = tuple(f"{name}.{layer}" for layer in range(cases.LAYERS) for name in HOOKS)
TOKENS = cases.tokens()


@functools.cache
def compiled(scan, cached):
    """Compiles (variables, taps) -> logits and reads; with a cache in two calls, of 6 and 3
    tokens.
    """
    model, variables = cases.model(scan=scan)

    @jax.jit
    def run(variables, taps):
        if not cached:
            passed = model.apply(variables, TOKENS, taps=taps, method="hidden")
            return model.apply(variables, passed.x, method="head"), passed.seen
        cache = empty_cache(model.config, len(TOKENS), 10, model.dtype, scan)
        xs, position = [], jnp.broadcast_to(jnp.arange(9), TOKENS.shape)
        for part in (slice(0, 6), slice(6, 9)):
            args = TOKENS[:, part], position[:, part], cache, taps
            passed = model.apply(variables, *args, method="hidden")
            xs, cache = [*xs, passed.x], passed.cache
        return model.apply(variables, jnp.concatenate(xs, axis=1), method="head"), passed.seen

    return lambda edits, reads=(): run(variables, Taps(edits, tuple(reads)))


def identity(value, position):
    return value


@pytest.mark.parametrize(
    ("scan", "cached"),
    [
        (False, False),
        (True, True),
        pytest.param(False, True, marks=pytest.mark.slow),
        pytest.param(True, False, marks=pytest.mark.slow),
    ],
)
def test_an_edit_that_changes_nothing_changes_nothing_to_the_bit(scan, cached):
    """It holds at every hook. The added zeros are in an array, so no compiler can know them."""
    run = compiled(scan, cached)
    clean, _ = run({})
    zeros = {h: add(np.zeros(cases.SIZE)) for h in ALL if not h.startswith("attn_pattern")}
    same = {h: Partial(identity) for h in ALL if h.startswith("attn_pattern")}
    edited, _ = run({**zeros, **same})
    np.testing.assert_array_equal(edited, clean)


@pytest.mark.parametrize("scan", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_reads_fit_together(scan):
    """Fails if mlp_out is read before its own norm, or a pattern before its mask."""
    _, seen = compiled(scan, False)({}, ALL)
    for layer in range(cases.LAYERS):
        at = {name: np.asarray(seen[f"{name}.{layer}"]) for name in HOOKS}
        close = functools.partial(np.testing.assert_allclose, atol=1e-5)
        close(at["resid_mid"], at["resid_pre"] + at["attn_out"])
        close(at["resid_post"], at["resid_mid"] + at["mlp_out"])
        close(at["attn_pattern"].sum(axis=-1), 1.0)
        later = np.triu(np.ones((9, 9), bool), 1)
        window = np.tril(np.ones((9, 9), bool), -4) if cases.EVERYTHING.local[layer] else later
        assert at["attn_pattern"].shape == (3, 4, 9, 9)
        assert (at["attn_pattern"][..., later | window] == 0).all()
        assert (at["attn_pattern"][..., ~(later | window)] > 0).all()
    np.testing.assert_array_equal(seen["resid_pre.1"], seen["resid_post.0"])


@pytest.mark.parametrize("cached", SLOW_SCAN)
def test_an_edit_of_one_text_leaves_the_others_alone(cached):
    """It holds to the bit. Fails if `only` counts positions where it should count texts."""
    run = compiled(False, cached)
    clean, _ = run({})
    one = only(add(np.arange(16.0)), texts=(1,))
    edited, _ = run(dict.fromkeys(("resid_pre.0", "attn_out.0", "mlp_in.1"), one))
    np.testing.assert_array_equal(edited[jnp.asarray([0, 2])], clean[jnp.asarray([0, 2])])
    assert (np.abs(edited[1] - clean[1]).max(axis=-1) > 1e-3).all()
    late, _ = run({"resid_pre.0": only(add(np.arange(16.0)), positions=(4,))})
    np.testing.assert_array_equal(late[:, :4], clean[:, :4])
    assert (np.abs(late[:, 4] - clean[:, 4]).max(axis=-1) > 1e-3).all()


@pytest.mark.parametrize("scan", SLOW_SCAN)
def test_a_patch_of_the_whole_stream_is_the_other_run(scan):
    """Fails if values are taken by slots, or if an edit acts at every layer."""
    model, variables = cases.model(scan=scan)
    other = cases.tokens(seed=1)
    stream = reader(model, variables, ("resid_post.1",))(other)["resid_post.1"]
    wanted = jax.jit(model.apply)(variables, other)
    for cached in (False, True):
        logits, _ = compiled(scan, cached)({"resid_post.1": patch(stream)})
        np.testing.assert_allclose(logits, wanted, atol=1e-5)


def test_ablations_are_read_behind_the_edit():
    _, seen = compiled(False, False)(
        {
            "attn_out.0": zero(),
            "mlp_out.0": mean(np.arange(16.0)),
            "mlp_out.1": chain(zero(), add(np.ones(16))),
        },
        ("resid_pre.0", "attn_out.0", "resid_post.0", "mlp_out.1"),
    )
    np.testing.assert_array_equal(seen["attn_out.0"], np.zeros((3, 9, 16)))
    np.testing.assert_allclose(
        seen["resid_post.0"], seen["resid_pre.0"] + np.arange(16.0)[None, None], atol=1e-5
    )
    np.testing.assert_array_equal(seen["mlp_out.1"], np.ones((3, 9, 16)))
    bare = {"resid_pre.0": lambda value, position: value * 0 + position[..., None]}
    found = reader(*cases.model(), ("resid_pre.0",), edits=bare)(TOKENS)["resid_pre.0"]
    np.testing.assert_array_equal(found[1, :, 3], np.arange(9))


@pytest.mark.parametrize("scan", SLOW_SCAN)
def test_reading_stops_at_the_last_hook(scan):
    """Fails if later blocks run: their weights are not given."""
    model, variables = cases.model(scan=scan)
    wanted = compiled(scan, False)({}, ("resid_post.0",))[1]["resid_post.0"]
    if not scan:
        gone = {k: v for k, v in variables["params"].items() if k not in ("blocks_1", "norm")}
        variables = {"params": {**gone, "norm": variables["params"]["norm"], "blocks_1": None}}
    both = reader(
        model, variables, ("resid_post.0",), then=lambda seen: {"x": 2 * seen["resid_post.0"]}
    )
    np.testing.assert_allclose(both(TOKENS)["x"], 2 * wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ("resid_post", "there is no hook 'resid_post'"),
        ("resid.0", "there is no hook 'resid.0'"),
        ("mlp_in.-1", "there is no hook 'mlp_in.-1'"),
        ("mlp_in.2", "of layer 2, but the model has layers 0 to 1"),
    ],
)
def test_a_hook_that_is_not_there_is_refused(hook, words):
    model, variables = cases.model()
    with pytest.raises(UserError, match=words):
        reader(model, variables, (hook,))
    with pytest.raises(UserError, match=words):
        jax.eval_shape(model.apply, variables, TOKENS, taps=Taps({hook: zero()}))


def test_an_edit_that_does_not_fit_is_refused():
    model, variables = cases.model()
    for edit, words in [
        (add(np.ones(7)), r"edit at mlp_in.1: its vector has shape \(7,\)"),
        (patch(np.ones((2, 4, 16))), "of 2 texts, but the batch has 3"),
        (Partial(lambda value, position: value[:, :1]), r"returned shape \(3, 1, 16\)"),
    ]:
        with pytest.raises(UserError, match=words):
            jax.eval_shape(model.apply, variables, TOKENS, taps=Taps({"mlp_in.1": edit}))
    with pytest.raises(UserError, match="no hook is given"):
        reader(model, variables, ())
    with pytest.raises(UserError, match=r"texts of 49 tokens are longer than .* 48"):
        reader(model, variables, ("mlp_in.0",))(cases.tokens(1, 49))
