"""Tests that the transformer computes what transformers does, in both forms, padded and sharded."""

import functools
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax.sharding import PartitionSpec

from aejax.language.config import Config
from aejax.language.generation import generate, padded
from aejax.language.huggingface import load_huggingface
from aejax.language.layers import FEW, product
from aejax.language.llama import Transformer, language_rules
from aejax.language.taps import Taps
from aejax.language.weights import stacked, unstacked
from aejax.training.compiled import state_layout
from tests import kinds
from tests.language import cases
from tests.language.parity import reference


@pytest.mark.parametrize("family", reference.FAMILIES)
def test_logits_are_those_of_transformers(family):
    """All families agree with transformers.

    Fails with interleaved rotary pairs, a window that is one longer, norms without Gemma's 1,
    scores not scaled by query_pre_attn_scalar, or unscaled Llama 3 frequencies.
    """
    expected = np.load(reference.HERE / family / "expected.npz")
    model, variables = load_huggingface(reference.HERE / family)
    if family != "llama":  # Gemma's local layers are then known only at run time
        model, variables = model.clone(scan=True), stacked(variables)
    reads = tuple(name for name in expected.files if name.startswith("resid"))

    @jax.jit
    def run(tokens):
        passed = model.apply(variables, tokens, taps=Taps(reads=reads), method="hidden")
        return model.apply(variables, passed.x, method="head"), passed.seen

    length = expected["tokens"].shape[1]
    logits, seen = run(np.concatenate([expected["tokens"], expected["greedy"]], axis=1))
    np.testing.assert_allclose(logits[:, :length], expected["logits"], atol=1e-5)
    for name in reads:
        np.testing.assert_allclose(seen[name][:, :length], expected[name], atol=1e-5)
    # Each greedy token is the likeliest after those before it.
    likeliest = jnp.argmax(logits[:, length - 1 : -1], axis=-1)
    np.testing.assert_array_equal(likeliest, expected["greedy"])


@pytest.mark.parametrize(
    "family", ["llama", *(pytest.param(f, marks=pytest.mark.slow) for f in ("qwen2", "gemma3"))]
)
def test_greedy_generation_is_that_of_transformers(family):
    expected = np.load(reference.HERE / family / "expected.npz")
    model, variables = load_huggingface(reference.HERE / family)
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


@functools.cache
def run(scan):
    """Compiles (tokens i32[3, 9], positions) -> logits."""
    model, variables = cases.model(scan=scan)
    apply = jax.jit(model.apply)
    every = np.broadcast_to(np.arange(9, dtype=np.int32), (3, 9))
    return lambda tokens, position=every: np.asarray(apply(variables, tokens, position))


def test_scanned_blocks_compute_what_unrolled_ones_do():
    tokens = cases.tokens()
    (model, variables), (scanned, its) = cases.model(), cases.model(scan=True)
    np.testing.assert_allclose(run(True)(tokens), run(False)(tokens), atol=1e-5)
    for a, b in zip(jax.tree.leaves(unstacked(its)), jax.tree.leaves(variables), strict=True):
        np.testing.assert_array_equal(a, b)
    shapes = jax.eval_shape(scanned.init, jax.random.key(0), tokens)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, stacked(variables))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == model.config.parameters


def test_padding_on_either_side_changes_nothing():
    """Fails if padding is attended to, or if positions count it."""
    tokens = cases.tokens(seed=5)
    whole = run(True)(tokens)
    texts = [row[:n].tolist() for row, n in zip(tokens, (3, 7, 9), strict=True)]
    for side in ("left", "right"):
        prompts = padded(texts, side=side)
        # Padding is any token, not only 0.
        filled = np.where(prompts.position < 0, 5, prompts.tokens)
        logits = run(True)(filled, np.asarray(prompts.position))
        for row, position, wanted in zip(logits, prompts.position, whole, strict=True):
            there = row[np.asarray(position) >= 0]
            np.testing.assert_allclose(there, wanted[: len(there)], atol=1e-5)


def test_few_and_many_rows_give_the_same_products():
    """The kernel is the left or the right factor."""
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((5, 7)).astype(np.float32)
    for rows in (FEW, FEW + 1):
        x = rng.standard_normal((rows, 1, 7)).astype(np.float32)
        np.testing.assert_allclose(product(x, kernel), x @ kernel.T, atol=1e-5)


def test_bfloat16_is_near_float32():
    model, variables = cases.model(scan=True)
    low = Transformer(model.config, jnp.bfloat16, scan=True)
    shapes = jax.eval_shape(low.init, jax.random.key(0), cases.tokens())
    rounded = jax.tree.map(lambda leaf, shape: leaf.astype(shape.dtype), variables, shapes)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(rounded)} == {"bfloat16", "float32"}
    wanted = run(True)(cases.tokens())
    found = jax.jit(low.apply)(rounded, cases.tokens())
    assert found.dtype == jnp.float32
    assert 0 < np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()


def test_the_rules_shard_every_matrix():
    """Fails if a rule of `language_rules` matches no parameter, or names the wrong axis."""
    _, variables = cases.model()
    mesh = jax.sharding.AbstractMesh((2,), ("model",))
    layout = state_layout(variables, mesh, language_rules)
    spec = {
        "/".join(path): leaf.spec
        for path, leaf in traverse_util.flatten_dict(layout["params"]).items()
        if any(leaf.spec)
    }
    # Four matrices and a bias in each block, the embedding and the head.
    assert len(spec) == 5 * cases.LAYERS + 2
    assert spec["blocks_0/attention/qkv/kernel"] == PartitionSpec("model", None)
    assert spec["blocks_0/attention/out/kernel"] == PartitionSpec(None, "model")
    assert spec["blocks_0/mlp/gate_up/kernel"] == PartitionSpec("model", None)
    assert spec["embedding"] == PartitionSpec("model", None)


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


@pytest.mark.slow
def test_two_devices_compute_what_one_does(monkeypatch):
    """Fails if a sharded axis is summed twice; the dictionary is sharded over its latents."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    apart, largest, halves = json.loads(kinds.output(kinds.python("-c", SHARDED)))
    assert apart < 1e-5
    assert largest > 0.1
    # Each block has four matrices and a bias; then come embedding, head and the dictionary's three.
    assert halves == 5 * cases.LAYERS + 2 + 3


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
