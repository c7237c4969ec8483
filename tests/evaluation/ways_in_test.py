"""Tests of missing entries, weights, arrays as data, and large units, against exact answers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax import evaluation
from tests import kinds

KEY = jax.random.key(0)


def test_half_of_the_entries_missing_against_the_exact_likelihood():
    """0.02 nats at K = 5000. Fails if a missing entry counts, or if its number is trained on."""
    generator, noise = np.random.default_rng(0), 0.5
    weight, bias = generator.normal(size=(6, 2)), generator.normal(size=6)
    x = generator.normal(size=(48, 2)) @ weight.T + bias + noise * generator.normal(size=(48, 6))
    seen = generator.random(x.shape) < 0.5
    right = []
    for row, there in zip(x, seen, strict=True):
        apart, part = (row - bias)[there], weight[there]
        covariance = part @ part.T + noise**2 * np.eye(there.sum())
        logdet = np.linalg.slogdet(2 * np.pi * covariance)[1]
        right.append(-0.5 * (apart @ np.linalg.solve(covariance, apart) + logdet))
    data = ae.data.splits(np.where(seen, x, np.nan), None)[0]
    model = ae.Autoencoder(
        ae.nets.Identity(),
        ae.Gaussian(2),
        ae.nets.MLP((), shape=(6,)),
        ae.priors.Standard(),
        ae.likelihoods.Gaussian(noise),
    )
    params = {  # the proposal is the prior
        "bottleneck": {"statistics": {"kernel": np.zeros((6, 4)), "bias": np.zeros(4)}},
        "decoder": {"output": {"kernel": weight.T, "bias": bias}},
    }
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
    found = evaluation.nll(model, {"params": params}, data, KEY, draws=5000, group=100)
    np.testing.assert_allclose(-found.nll.mean(), np.mean(right), atol=0.02)


def test_weights_are_repetitions():
    """Loss and gradient of weights 1, 2, 3 equal those of repeated examples.

    Fails if the weights of a batch are scaled to a mean of 1: their mean over train is 1.
    """
    x = kinds.pixels(12)
    counts = np.arange(12) % 3 + 1
    weighted = ae.data.splits({"x": x, "weights": counts}, None)[0]
    repeated = ae.data.splits(np.repeat(x, counts, axis=0), None)[0]
    model = kinds.plain()  # without noise, which would differ by row
    learner = ae.learner(model, ae.reconstruction(), optax.sgd(1.0))
    results = []
    for split in (weighted, repeated):
        batch = next(split.batches(len(split)))
        state = jax.jit(learner.init)(KEY, batch)
        results.append(jax.jit(learner.step)(state, batch))
    np.testing.assert_allclose(results[0][1]["loss"], results[1][1]["loss"], rtol=1e-5)
    for a, b in zip(*(jax.tree.leaves(r[0].params) for r in results), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    few = weighted.prepare(KEY, weighted.rows(np.arange(2)))  # of weights 1 and 2, where 2 is usual
    variables = learner.variables(results[0][0])
    bound = model.bind(variables)
    each = np.asarray(ae.losses.distortion(bound, bound(few)))
    found = jax.jit(learner.evaluate)(variables, few, KEY, 0)
    np.testing.assert_allclose(found["loss"], (0.5 * each[0] + each[1]) / 2, rtol=1e-5)


def test_evaluations_take_arrays_and_batches():
    x = kinds.pixels(10)
    model = kinds.variational()
    variables = jax.jit(model.init)(KEY, x)
    split = ae.data.splits(x, None)[0]
    forms = (split, x, jnp.asarray(x), ae.Batch(jnp.asarray(x), jnp.asarray(x)))
    found = [evaluation.nll(model, variables, data, KEY, draws=4, batch=8).nll for data in forms]
    codes = [model.bind(variables).encode(data) for data in forms]
    for nll, code in zip(found[1:], codes[1:], strict=True):
        np.testing.assert_array_equal(nll, found[0])
        np.testing.assert_array_equal(code, codes[0])
    with pytest.raises(ae.UserError, match=r"cannot read data of shape \(2,\)"):
        evaluation.nll(model, variables, [1, 2], KEY)


@pytest.mark.slow
def test_columns_of_any_scale_train():
    """Deviations 10, 30 and 100 (the loss was inf): densities stay those of the units."""
    random = np.random.default_rng(0)
    x = (random.normal(size=(256, 3)) * [10, 30, 100] + [0, 100, -50]).astype(np.float32)
    train = ae.data.splits(x, None)[0]
    known = ae.data.statistics(train)
    inner = ae.likelihoods.LearnedGaussian()
    model = ae.Autoencoder(
        ae.nets.Standardised(ae.nets.MLP((16,)), *known),
        ae.Gaussian(2),
        ae.nets.MLP((16,), shape=3),
        ae.priors.Standard(),
        ae.likelihoods.Standardised(inner, *known),
    )
    learner = ae.compiled(ae.chunked(ae.learner(model, ae.elbo(), optax.adam(1e-2)), 100))
    batches = ae.data.Batches(train, 64)
    state = learner.init(KEY, batches[0])
    losses = []
    for after, metrics in ae.loop(learner, state, batches, 100):
        losses.append(metrics["loss"])
        variables = learner.variables(after)
    losses = np.concatenate(losses)
    # The entropy of independent Gaussians of these deviations is 14.6 nats.
    assert losses[0] < 50
    assert losses[-10:].mean() < 17
    prediction = jnp.ones((1, 3))
    likelihood = model.likelihood
    mine = {"params": variables["params"]["likelihood"]}
    low = likelihood.apply(mine, prediction, jnp.asarray(x[:1]), method="log_prob")
    std = inner.apply({"params": mine["params"]["likelihood"]}, method="std")
    scaled = (x[0] - np.asarray(known.mean)) / np.asarray(known.std)
    each = -0.5 * ((scaled - 1) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(low[0], np.sum(each - np.log(known.std)), rtol=1e-4)
