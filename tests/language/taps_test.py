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

ALL = tuple(f"{name}.{layer}" for layer in range(cases.LAYERS) for name in HOOKS)
ADDED = ("resid_pre.0", "mlp_in.0", "resid_post.0", "attn_out.1", "resid_mid.1", "mlp_in.1")
TOKENS, OTHER = cases.tokens(), cases.tokens(seed=1)
TEXTS, POSITIONS = (0, 1, 2), tuple(range(9))
RAMP = np.arange(16.0, dtype=np.float32)
FORMS = [
    (False, False),
    (True, True),
    pytest.param(False, True, marks=pytest.mark.slow),
    pytest.param(True, False, marks=pytest.mark.slow),
]
both_forms = pytest.mark.parametrize(("scan", "cached"), FORMS)


@functools.cache
def compiled(scan, cached):
    """Compiles (tokens, edits, reads) -> logits and reads; with a cache in two calls, of 6 and 3
    tokens.
    """
    model, variables = cases.model(scan=scan)

    @jax.jit
    def run(variables, tokens, taps):
        if not cached:
            passed = model.apply(variables, tokens, taps=taps, method="hidden")
            return model.apply(variables, passed.x, method="head"), passed.seen
        cache = empty_cache(model.config, len(tokens), 10, model.dtype, scan)
        xs, position = [], jnp.broadcast_to(jnp.arange(9), tokens.shape)
        for part in (slice(0, 6), slice(6, 9)):
            args = tokens[:, part], position[:, part], cache, taps
            passed = model.apply(variables, *args, method="hidden")
            xs, cache = [*xs, passed.x], passed.cache
        return model.apply(variables, jnp.concatenate(xs, axis=1), method="head"), passed.seen

    def edited(acts, tokens=TOKENS):
        return run(variables, tokens, Taps(edits(acts), () if cached else ALL))

    return edited, lambda tokens=TOKENS: run(variables, tokens, Taps())[0]


def identity(value, position):
    return value


def edits(acts):
    """Returns an edit for every hook, which acts on no text unless `acts` says so.

    All have the same structure, so that one program serves every test of this file.

    Args:
      acts: hook -> (values, texts, positions).
    """
    found = {}
    for hook in ALL:
        shape = (3, 9, 16) if hook == "resid_post.1" else (16,)
        values, texts, positions = acts.get(hook, (np.zeros(shape), (), ()))
        values = jnp.asarray(values, jnp.float32)
        how = {
            "attn_out.0": lambda _: zero(),
            "mlp_out.0": mean,
            "mlp_out.1": lambda values: chain(zero(), add(values)),
            "resid_post.1": patch,
        }.get(hook, add)
        if hook.startswith("attn_pattern"):
            found[hook] = Partial(identity)
            continue
        texts = (*texts, *[-2] * (3 - len(texts)))
        positions = (*positions, *[-2] * (9 - len(positions)))
        found[hook] = only(how(values), texts=texts, positions=positions)
    return found


@both_forms
def test_an_edit_that_changes_nothing_changes_nothing_to_the_bit(scan, cached):
    """At every hook; the added numbers are an array's zeros, which no compiler can know."""
    edited, clean = compiled(scan, cached)
    for acts in ({}, {hook: (np.zeros(16), TEXTS, POSITIONS) for hook in ADDED}):
        np.testing.assert_array_equal(edited(acts)[0], clean())


def test_reads_fit_together():
    """Fails if mlp_out is read before its own norm, or a pattern before its mask."""
    _, seen = compiled(False, False)[0]({})
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
    # What the MLP's matrices read is the normed stream.
    weight = np.asarray(cases.model()[1]["params"]["blocks_0"]["mlp_norm"]["weight"])
    stream = np.asarray(seen["resid_mid.0"])
    normed = stream / np.sqrt(np.mean(stream**2, axis=-1, keepdims=True)) * weight
    np.testing.assert_allclose(seen["mlp_in.0"], normed, atol=1e-4)


@both_forms
def test_an_edit_of_one_text_leaves_the_others_alone(scan, cached):
    """To the bit; fails if `only` counts positions where it should count texts, or slots."""
    edited, clean = compiled(scan, cached)
    clean = clean()
    some, _ = edited({hook: (RAMP, (1,), POSITIONS) for hook in ("resid_pre.0", "mlp_in.1")})
    np.testing.assert_array_equal(some[jnp.asarray([0, 2])], clean[jnp.asarray([0, 2])])
    assert (np.abs(some[1] - clean[1]).max(axis=-1) > 1e-3).all()
    for first in (4, 7):
        late, _ = edited({"resid_pre.0": (RAMP, TEXTS, (first,))})
        np.testing.assert_array_equal(late[:, :first], clean[:, :first])
        assert (np.abs(late[:, first] - clean[:, first]).max(axis=-1) > 1e-3).all()


@both_forms
def test_a_patch_of_the_whole_stream_is_the_other_run(scan, cached):
    """Fails if values are taken by slots, or if an edit is done at every layer."""
    edited, clean = compiled(scan, cached)
    stream = compiled(False, False)[0]({}, OTHER)[1]["resid_post.1"]
    logits, _ = edited({"resid_post.1": (stream, TEXTS, POSITIONS)})
    np.testing.assert_allclose(logits, clean(OTHER), atol=1e-5)


def test_ablations_are_read_behind_the_edit():
    hooks = ("attn_out.0", "mlp_out.0", "mlp_out.1")
    _, seen = compiled(False, False)[0]({hook: (RAMP, TEXTS, POSITIONS) for hook in hooks})
    np.testing.assert_array_equal(seen["attn_out.0"], np.zeros((3, 9, 16)))
    np.testing.assert_allclose(
        seen["resid_post.0"], seen["resid_pre.0"] + RAMP[None, None], atol=1e-5
    )
    np.testing.assert_array_equal(seen["mlp_out.1"], np.broadcast_to(RAMP, (3, 9, 16)))
    bare = {"resid_pre.0": lambda value, position: value * 0 + position[..., None]}
    found = reader(*cases.model(), ("resid_pre.0",), edits=bare)(TOKENS)["resid_pre.0"]
    np.testing.assert_array_equal(found[1, :, 3], np.arange(9))


@pytest.mark.parametrize("scan", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_reading_stops_at_the_last_hook(scan):
    """Fails if later blocks run: their weights are not given."""
    model, variables = cases.model(scan=scan)
    wanted = compiled(False, False)[0]({})[1]["resid_post.0"]
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
        (add(np.ones(7)), r"edit at mlp_in.1: a vector of shape \(7,\)"),
        (patch(np.ones((2, 4, 16))), "of 2 texts, but the batch has 3"),
        (Partial(lambda value, position: value[:, :1]), r"returned shape \(3, 1, 16\)"),
    ]:
        with pytest.raises(UserError, match=words):
            jax.eval_shape(model.apply, variables, TOKENS, taps=Taps({"mlp_in.1": edit}))
    with pytest.raises(UserError, match="no hook is given"):
        reader(model, variables, ())
    with pytest.raises(UserError, match=r"texts of 49 tokens are longer than .* 48"):
        reader(model, variables, ("mlp_in.0",))(cases.tokens(1, 49))
