"""Tests of explained variance, L0 and dead latents, for codes whose values are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax as ae
from aejax import evaluation
from aejax.evaluation.sparsity import merged, variance
from aejax.types import Batch
from tests.evaluation.cases import Held, linear_gaussian

KEY = jax.random.key(0)


def _sae(bottleneck, x):
    model = ae.Autoencoder(ae.nets.Identity(), bottleneck, ae.nets.Dictionary(x.shape[1]))
    return model, jax.jit(model.init)(KEY, Batch(x[:2], x[:2]))


def _constant(x, bias):
    """Makes a sparse autoencoder that always predicts `bias`."""
    model, variables = _sae(ae.ReLU(8), x)
    zero = jax.tree.map(jnp.zeros_like, variables["params"])
    zero["decoder"]["bias"] = jnp.asarray(bias, jnp.float32)
    return model, {**variables, "params": zero}


def _data(examples=5000, size=24, offset=3.0):
    noise = np.random.default_rng(1).normal(size=(examples, size)) * np.linspace(0.1, 2.0, size)
    return Held(noise + offset)


def test_a_mean_predictor_scores_zero():
    """Fails if the sum of x^2 is used for the variance: 0.9 on data of mean 3."""
    data = _data()
    model, variables = _constant(data.x, data.x.mean(axis=0, dtype=np.float64))
    found = evaluation.sparsity(model, variables, data)
    assert found.explained_variance == pytest.approx(0.0, abs=1e-9)
    assert (found.dead, found.l0, found.examples) == (1.0, 0.0, 5000)


def test_explained_variance_against_numpy():
    """Fails if the ratios of dimensions or batches are averaged."""
    data = _data(1000)
    model, variables = _constant(data.x, np.zeros(24))
    x = data.x.astype(np.float64)
    expected = 1.0 - np.sum(x**2) / np.sum((x - x.mean(axis=0)) ** 2)
    found = evaluation.sparsity(model, variables, data, batch=64).explained_variance
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("bottleneck", [ae.ReLU(48), ae.TopK(48, 12)])
def test_figures_do_not_depend_on_the_chunk(bottleneck):
    """The dictionary is good. Fails if differences or sums are float32, or if padding counts."""
    data = _data()
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(24, 24)))[0]
    atoms, mean = np.concatenate([directions, -directions]), data.x.mean(axis=0)
    params = {
        "bottleneck": {"encode": {"kernel": atoms.T, "bias": -mean @ atoms.T}},
        "decoder": {"atoms": 0.9 * atoms, "bias": mean},
    }
    model, variables = _sae(bottleneck, data.x)
    variables = {**variables, "params": jax.tree.map(lambda a: jnp.asarray(a, "f4"), params)}
    small = evaluation.sparsity(model, variables, data, batch=7)
    large = evaluation.sparsity(model, variables, data, batch=4096)
    assert 0.9 < small.explained_variance < 0.995
    assert small.explained_variance == pytest.approx(large.explained_variance, abs=1e-9)
    assert (small.l0, small.dead) == (large.l0, large.dead)
    np.testing.assert_array_equal(small.frequency, large.frequency)


def test_merged_chunks_are_exact_about_a_large_mean():
    """Fails if the variance is the mean square minus the squared mean: 1e-4 at mean 1e6."""
    generator = np.random.default_rng(2)
    x = generator.normal(size=(500, 3)) + np.array([1e6, 0.0, -5.0])
    guess = x + 0.1 * generator.normal(size=x.shape)
    expected = 1.0 - np.sum((x - guess) ** 2) / np.sum((x - x.mean(axis=0)) ** 2)
    for size in (1, 7, 499, 500):
        sums = variance(x[:size], guess[:size])
        for i in range(size, 500, size):
            sums = merged(sums, variance(x[i : i + size], guess[i : i + size]))
        assert sums.explained() == pytest.approx(expected, abs=1e-9)


def test_masked_elements_neither_vary_nor_err():
    """Fails if the mask does not apply to the variance."""
    generator = np.random.default_rng(2)
    x, mask = generator.normal(size=(40, 6)), generator.integers(0, 2, (40, 6)).astype(float)
    guess = x + 0.3 * generator.normal(size=x.shape)
    kept = np.where(mask > 0, x, np.nan)
    total = np.nansum((kept - np.nanmean(kept, axis=0)) ** 2)
    expected = 1.0 - np.nansum((kept - guess) ** 2) / total
    spoiled = np.where(mask > 0, x, 1e3)
    sums = merged(
        variance(spoiled[:9], guess[:9], mask[:9]), variance(spoiled[9:], guess[9:], mask[9:])
    )
    assert sums.explained() == pytest.approx(expected, rel=1e-9)


def test_density_l0_and_dead_latents_are_counted():
    """Latents 0 and 1 follow the sign of x_0, 2 is always active, 3 never. Fails if slots count."""
    data = Held(np.array([[1.0, 0.0]] * 3 + [[-1.0, 0.0]] * 8))
    expected = np.array([3 / 11, 8 / 11, 1.0, 0.0])
    for bottleneck in (ae.ReLU(4), ae.TopK(4, 3)):
        model, variables = _sae(bottleneck, data.x)
        encode = {
            "kernel": jnp.array([[1.0, -1.0, 0.0, 0.0], [0.0] * 4]),
            "bias": jnp.array([0.0, 0.0, 1.0, -1.0]),
        }
        params = {**variables["params"], "bottleneck": {"encode": encode}}
        found = evaluation.sparsity(model, {**variables, "params": params}, data, batch=4)
        np.testing.assert_allclose(found.frequency, expected, rtol=1e-12)
        assert found.l0 == pytest.approx(2.0)
        assert found.dead == 0.25
        assert found.examples == 11


def test_evaluation_neither_reads_the_batch_nor_writes_the_memory():
    """BatchTopK with a threshold in its memory, over several batches, equals numpy.

    Fails if an evaluation is a training pass, in which k latents are active on average, or if what
    it writes into the memory reaches the next batch or the caller.
    """
    data = _data(20)
    model, variables = _sae(ae.BatchTopK(32, 4), data.x)
    encode = variables["params"]["bottleneck"]["encode"]
    score = np.float64(data.x) @ np.float64(encode["kernel"]) + np.float64(encode["bias"])
    ordered = np.sort(score.ravel())
    threshold = ordered[-200:-198].mean()  # ten latents per example, halfway to the next score
    memory = {"bottleneck": {"threshold": jnp.float32(threshold),
                             "ages": {"age": jnp.arange(32, dtype=jnp.int32)}}}  # fmt: skip
    assert jax.tree.structure(memory) == jax.tree.structure(variables["memory"])
    variables = {**variables, "memory": memory}
    before = jax.tree.map(np.array, memory)
    found = evaluation.sparsity(model, variables, data, batch=5)
    assert threshold > 0
    assert found.l0 * 20 == np.sum(score > threshold) == 199
    np.testing.assert_allclose(found.frequency, np.mean(score > threshold, axis=0))
    jax.tree.map(np.testing.assert_array_equal, before, variables["memory"])


def test_a_code_that_is_not_sparse_is_refused():
    case = linear_gaussian(examples=4)
    with pytest.raises(ae.UserError, match="GaussianCode has no l0"):
        evaluation.sparsity(case.model, case.variables, case.data)
