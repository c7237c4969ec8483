"""Tests of dictionaries in a model: latents are edited exactly, by a difference of two
decodings.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from aejax.bottlenecks.sparse.plain import Source
from aejax.dictionaries.plain import decode, encode, reconstruct
from aejax.errors import UserError
from aejax.language.edits import add, chain, only, zero
from aejax.language.generation import generate, padded
from aejax.language.splicing import change, clamp, latents, replace, scale
from aejax.language.taps import Taps
from tests.language import cases

M = 24
DICTIONARIES = {
    "relu": cases.dictionary(),
    "topk": cases.dictionary(activation="topk", k=5, apply_b_dec_to_input=True),
    "jumprelu": cases.dictionary(activation="jumprelu", threshold=jnp.full(M, 0.5)),
    "normalised": cases.dictionary(normalisation="layer_norm", W_skip=jnp.eye(cases.SIZE)),
}
VALUE = jnp.asarray(np.random.default_rng(3).standard_normal((2, 5, cases.SIZE)), jnp.float32)
POSITION = jnp.broadcast_to(jnp.arange(5), (2, 5))


@pytest.mark.parametrize("name", DICTIONARIES)
def test_a_latent_is_written_as_the_difference_of_two_decodings(name):
    """Fails if the bias or the skip is added, or if the scale of a normalised output is left
    out.
    """
    plain = DICTIONARIES[name]
    rows = VALUE.reshape(-1, cases.SIZE)
    codes = encode(plain, rows)
    written = {
        "clamp": (clamp(plain, [2, 7], [3.0, -1.0]), codes.at[:, 2].set(3.0).at[:, 7].set(-1.0)),
        "scale": (scale(plain, [3], 0.0), codes.at[:, 3].set(0.0)),
        "change": (change(plain, Partial(lambda z, position: z * 2.0)), codes * 2.0),
    }
    for edit, edited in written.values():
        wanted = rows + decode(plain, edited, rows) - decode(plain, codes, rows)
        found = edit(VALUE, POSITION).reshape(wanted.shape)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(
        replace(plain)(VALUE, POSITION).reshape(rows.shape), reconstruct(plain, rows), atol=1e-6
    )
    np.testing.assert_array_equal(latents(plain, VALUE).reshape(codes.shape), codes)


@pytest.mark.parametrize("cached", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_empty_edit_of_latents_changes_nothing_to_the_bit(cached):
    """Though the dictionary's reconstruction is far from the value."""
    model, variables = cases.model(scan=True)
    plain = DICTIONARIES["topk"]
    tokens = cases.tokens()
    empty = {
        "resid_pre.0": change(plain, Partial(lambda z, position: z)),
        "resid_mid.0": scale(plain, [0, 5, 7], 1.0),
        "mlp_out.1": clamp(plain, [], 0.0),
    }
    if not cached:
        run = jax.jit(lambda taps: model.apply(variables, tokens, taps=taps))
        np.testing.assert_array_equal(run(Taps(empty)), run(Taps()))
        return
    prompts = padded(tokens.tolist())
    a, b = (generate(model, variables, prompts, count=8, edits=e).tokens for e in ({}, empty))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("scan", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_transcoder_takes_the_place_of_the_mlp(scan):
    """Fails if it reads the edited hook, another layer's, or the value before an edit there."""
    model, variables = cases.model(scan=scan)
    plain = DICTIONARIES["topk"]
    tripled = scale(plain, [3, 4], 3.0, reads="mlp_in.1")
    edits = {
        "mlp_in.0": add(np.ones(cases.SIZE)),
        "mlp_out.0": only(replace(plain, reads="mlp_in.0"), texts=(0, 2)),
        "mlp_out.1": chain(zero(), tripled),
    }
    reads = ("mlp_in.0", "mlp_out.0", "mlp_in.1", "mlp_out.1")
    run = jax.jit(lambda taps: model.apply(variables, cases.tokens(), taps=taps, method="hidden"))
    seen = run(Taps(edits, reads)).seen
    assert set(seen) == set(reads)
    first = seen["mlp_in.0"].reshape(-1, cases.SIZE)
    wanted = reconstruct(plain, first).reshape(seen["mlp_out.0"].shape)
    np.testing.assert_allclose(seen["mlp_out.0"][::2], wanted[::2], atol=1e-4)
    assert np.abs(seen["mlp_out.0"][1] - wanted[1]).max() > 0.1
    codes = encode(plain, seen["mlp_in.1"].reshape(-1, cases.SIZE))[:, 3:5]
    wanted = 2.0 * codes @ plain.W_dec[3:5]
    np.testing.assert_allclose(seen["mlp_out.1"].reshape(wanted.shape), wanted, atol=1e-4)
    for hook in ("mlp_in.0", "mlp_out.1"):
        with pytest.raises(UserError, match=f"at {hook} reads mlp_out.1, which .* afterwards"):
            run(Taps({hook: replace(plain, reads="mlp_out.1")}))
    with pytest.raises(UserError, match=r"reads the values at mlp_in.0, so it can be used only"):
        replace(plain, reads="mlp_in.0")(VALUE, POSITION)


def test_a_dictionary_is_refused_at_a_hook_that_it_was_not_trained_on():
    """Fails if a hook's name in another library's words is not understood."""
    model, variables = cases.model()

    def spliced(source, hook, **how):
        edit = replace(DICTIONARIES["relu"]._replace(source=source), **how)
        jax.eval_shape(model.apply, variables, cases.tokens(), taps=Taps({hook: edit}))

    own = Source("gpt2", "blocks.0.hook_resid_post")
    spliced(own, "resid_post.0")
    spliced(own, "resid_pre.1")  # has the same value
    spliced(None, "resid_post.1")
    spliced(Source("other", "transformer.h.3"), "resid_post.1")  # says nothing in known words
    with pytest.raises(UserError, match=r"at resid_post.1 was made for resid_post.0: .*source=No"):
        spliced(own, "resid_post.1")
    with pytest.raises(UserError, match=r"made for blocks.0.attn.hook_z"):
        spliced(Source(None, "blocks.0.attn.hook_z"), "resid_post.0")
    layer = "model.layers.1"
    across = Source(
        "gemma",
        f"{layer}.pre_feedforward_layernorm.output",
        f"{layer}.post_feedforward_layernorm.output",
    )
    spliced(across, "mlp_out.1")  # reads mlp_in.1
    with pytest.raises(UserError, match=r"at mlp_out.0 was made for mlp_out.1"):
        spliced(across, "mlp_out.0")
    with pytest.raises(UserError, match=r"trained to read mlp_in.1, not mlp_in.0"):
        spliced(across, "mlp_out.1", reads="mlp_in.0")


def test_programs_are_shared_by_dictionaries_of_one_form():
    """Fails if weights are constants of the program."""
    traces = []

    @jax.jit
    def run(edit):
        traces.append(1)
        return edit(VALUE, POSITION)

    a, b = (run(replace(cases.dictionary(seed=seed))) for seed in (0, 1))
    assert np.abs(a - b).max() > 0.1
    run(clamp(cases.dictionary(), [1], 2.0))
    run(clamp(cases.dictionary(seed=1), [3], 4.0))
    assert len(traces) == 2


def test_what_does_not_fit_is_refused():
    plain = cases.dictionary()
    with pytest.raises(UserError, match="no latent 24: the dictionary has 0 to 23"):
        clamp(plain, [24], 1.0)
    with pytest.raises(UserError, match="no latent -1"):
        scale(plain, [-1], 1.0)
    with pytest.raises(UserError, match="3 numbers for 2 latents"):
        clamp(plain, [1, 2], [1.0, 2.0, 3.0])
    with pytest.raises(UserError, match="more than once"):
        clamp(plain, [1, 1], 1.0)
    wide = cases.dictionary(size=20)
    for edit in (replace(wide), clamp(wide, [1], 1.0)):
        with pytest.raises(UserError, match=r"reads 20 numbers, but .* \(2, 5, 16\)"):
            edit(VALUE, POSITION)
    narrow = plain._replace(W_dec=plain.W_dec[:, :7], b_dec=plain.b_dec[:7])
    with pytest.raises(UserError, match="writes 7 numbers"):
        replace(narrow)(VALUE, POSITION)
    assert latents(narrow, VALUE).shape == (2, 5, M)
