"""Tests that the transformer computes what transformers does, in both forms, padded and sharded."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.language.config import Config
from aejax.language.generation import generate, padded
from aejax.language.huggingface import load_huggingface
from aejax.language.llama import Transformer, empty_cache
from aejax.language.taps import Taps
from aejax.language.weights import stacked, unstacked
from tests import kinds
from tests.language import cases
from tests.language.parity import reference


@pytest.mark.parametrize("family", reference.FAMILIES)
def test_logits_and_greedy_texts_are_those_of_transformers(family):
    """All families agree with transformers.

    Fails with interleaved rotary pairs, a window that is one longer, norms without Gemma's 1,
    scores not scaled by query_pre_attn_scalar, or unscaled Llama 3 frequencies.
    """
    expected = np.load(reference.HERE / family / "expected.npz")
    model, variables = load_huggingface(reference.HERE / family)
    reads = tuple(name for name in expected.files if name.startswith("resid"))

    @jax.jit
    def run(tokens):
        passed = model.apply(variables, tokens, taps=Taps(reads=reads), method="hidden")
        return model.apply(variables, passed.x, method="head"), passed.seen

    logits, seen = run(expected["tokens"])
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-5)
    for name in reads:
        np.testing.assert_allclose(seen[name], expected[name], atol=1e-5)
    made = generate(model, variables, padded(expected["tokens"].tolist()), count=reference.NEW)
    np.testing.assert_array_equal(made.tokens, expected["greedy"])


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None or importlib.util.find_spec("torch") is None,
    reason="transformers or torch is not installed: pip install -e '.[parity]'",
)
@pytest.mark.parametrize("family", reference.FAMILIES)
def test_the_frozen_arrays_are_what_transformers_computes(family):
    frozen = np.load(reference.HERE / family / "expected.npz")
    for name, value in reference.computed(reference.made(family)).items():
        np.testing.assert_allclose(frozen[name], value, atol=1e-5)


def test_scanned_blocks_compute_what_unrolled_ones_do():
    tokens = cases.tokens()
    (model, variables), (scanned, its) = cases.model(), cases.model(scan=True)
    np.testing.assert_allclose(
        jax.jit(scanned.apply)(its, tokens), jax.jit(model.apply)(variables, tokens), atol=1e-5
    )
    for a, b in zip(jax.tree.leaves(unstacked(its)), jax.tree.leaves(variables), strict=True):
        np.testing.assert_array_equal(a, b)
    shapes = jax.eval_shape(scanned.init, jax.random.key(0), tokens)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, stacked(variables))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == model.config.parameters


def test_padding_on_either_side_changes_nothing():
    """Fails if padding is attended to, or if positions count it."""
    model, variables = cases.model()
    texts = [cases.tokens(1, n, seed=n)[0].tolist() for n in (3, 7)]
    run = jax.jit(model.apply)
    alone = [run(variables, np.asarray([text]))[0] for text in texts]
    for side in ("left", "right"):
        prompts = padded(texts, side=side)
        logits = run(variables, *prompts)
        for row, position, wanted in zip(logits, prompts.position, alone, strict=True):
            np.testing.assert_allclose(row[position >= 0], wanted, atol=1e-5)


def test_bfloat16_is_near_float32():
    model, variables = cases.model()
    low = Transformer(model.config, jnp.bfloat16)
    shapes = jax.eval_shape(low.init, jax.random.key(0), cases.tokens())
    rounded = jax.tree.map(lambda leaf, shape: leaf.astype(shape.dtype), variables, shapes)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(rounded)} == {"bfloat16", "float32"}
    wanted = jax.jit(model.apply)(variables, cases.tokens())
    found = jax.jit(low.apply)(rounded, cases.tokens())
    assert found.dtype == jnp.float32
    assert 0 < np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()


def test_a_step_with_a_cache_lowers_for_tpus():
    model, variables = cases.model(scan=True)
    cache = empty_cache(model.config, 2, 8, model.dtype, scan=True)

    def step(variables, tokens, cache):
        position = jnp.zeros(tokens.shape, jnp.int32)
        return model.apply(variables, tokens, position, cache, method="hidden")

    lowered = jax.jit(step).trace(variables, cases.tokens(2, 1), cache)
    assert lowered.lower(lowering_platforms=("tpu",)).as_text()


SHARDED = """
import json, jax, numpy as np
import aejax as ae
from aejax.language.llama import language_rules
from aejax.language.splicing import replace
from aejax.language.taps import Taps
from aejax.training.compiled import state_layout
from tests.language import cases
mesh = ae.mesh(model=2)
model, variables = cases.model()
tokens = cases.tokens()
taps = Taps({"resid_post.1": replace(cases.dictionary())})
run = jax.jit(lambda variables, taps: model.apply(variables, tokens, taps=taps))
one = run(variables, taps)
laid = jax.device_put(variables, state_layout(variables, mesh, language_rules))
edit = jax.device_put(taps, state_layout(taps, mesh, language_rules))
two = run(laid, edit)
halves = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves((laid, edit)))
print(json.dumps([float(abs(one - two).max()), float(abs(one).max()), halves]))
"""


def test_two_devices_compute_what_one_does(monkeypatch):
    """Fails if a sharded axis is summed twice; the dictionary is sharded over its latents."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    apart, largest, halves = json.loads(kinds.output(kinds.python("-c", SHARDED)))
    assert apart < 1e-5
    assert largest > 0.1
    # Each block has seven matrices and three biases; then come embedding, head and the dictionary's
    # three.
    assert halves == 10 * cases.LAYERS + 2 + 3


def test_numbers_that_do_not_belong_together_are_refused():
    sizes = cases.SIZES
    for wrong, words in [
        ({"kv_heads": 3}, "kv_heads must divide"),
        ({"head_size": 7}, "even number"),
        ({"local": (True,)}, "1 entries"),
        ({"local": (True, True)}, "window is 0"),
        ({"rope_factors": (1.0,)}, "rope_factors has 1"),
    ]:
        with pytest.raises(ValueError, match=words):
            Config(**{**sizes, **wrong})
