"""Tests of likelihoods of counts and of Student's t against scipy, also at extreme values."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax as ae
from aejax import likelihoods
from aejax.errors import UserError
from aejax.likelihoods import count_densities

stats = pytest.importorskip("scipy.stats")
special = pytest.importorskip("scipy.special")

MEANS = np.float32(np.log([1e-6, 0.03, 1.0, 5.0, 300.0, 1e6]))
THETAS = np.float32(np.log([1e-3, 0.3, 1.0, 20.0, 1e4, 1e6, 1e8]))


def near(log_mean, log_theta):
    """Returns counts of up to 5 standard deviations from the mean, and small ones."""
    mean = np.exp(np.float64(log_mean))
    spread = np.sqrt(mean + mean**2 * np.exp(-np.float64(log_theta)))
    around = np.rint(mean + spread * np.linspace(-5, 5, 11))
    return np.unique(np.clip(np.concatenate([around, np.arange(4.0), [20.0]]), 0, 2**24))


def grid():
    """Returns counts, log-means and log-thetas, each f32[rows]."""
    rows = [(k, m, t) for m in MEANS for t in THETAS for k in near(m, t)]
    return np.float32(rows).T


def test_negative_binomial_is_exact_at_any_theta_and_mean():
    """The reference is scipy in float64; the tolerance is that of exp(log_mean) in float32.

    Fails for the textbook form with its difference of two lgammas, which is wrong by 0.6 nats at
    mean 5 and theta 1e6 and by more at larger ones, and if u near -1 is not read as a logarithm.
    """
    count, log_mean, log_theta = grid()
    found = jax.jit(count_densities.negative_binomial)(count, log_mean, log_theta)
    mean, theta = np.exp(np.float64(log_mean)), np.exp(np.float64(log_theta))
    expected = stats.nbinom.logpmf(count, theta, theta / (theta + mean))
    # scipy loses digits itself where theta is large; there Loader's form in float64 is compared.
    with jax.enable_x64(True):
        exact = count_densities.negative_binomial(
            *(jnp.asarray(a, jnp.float64) for a in (count, log_mean, log_theta))
        )
        exact = np.asarray(exact)
    small = np.exp(log_theta) < 1e5
    np.testing.assert_allclose(exact[small], expected[small], rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(exact, expected, rtol=1e-5, atol=0.02)
    # d log p / d log mean = (count - mean) theta / (theta + mean), times the error of log mean.
    slope = np.abs((count - mean) * theta / (theta + mean))
    error = np.abs(np.asarray(found) - exact)
    assert np.all(error <= 4e-6 + 2e-6 * np.abs(exact) + 5e-7 * slope)


def test_poisson_is_exact_at_any_mean():
    """Fails for count * log_mean - mean - lgamma(count + 1), wrong by 1 at a mean of 1e6."""
    rows = np.float32([(k, m) for m in MEANS for k in near(m, 30.0)])
    count, log_mean = rows.T
    mean = np.exp(np.float64(log_mean))
    found = jax.jit(count_densities.poisson)(count, log_mean)
    expected = stats.poisson.logpmf(count, mean)
    error = np.abs(np.asarray(found) - expected)
    assert np.all(error <= 4e-6 + 2e-6 * np.abs(expected) + 5e-7 * np.abs(count - mean))


def test_negative_binomial_becomes_poisson():
    """At mean 5 and theta 1e6 it is Poisson to 1e-4, and differs from it as the exact sum does."""
    count = np.arange(21, dtype=np.float32)
    log_mean = np.full_like(count, np.log(5.0))
    found = np.asarray(
        count_densities.negative_binomial(count, log_mean, np.full_like(count, np.log(1e6)))
    )
    limit = stats.poisson.logpmf(count, np.exp(np.float64(log_mean)))
    np.testing.assert_allclose(found, limit, rtol=1e-4)
    mean, theta = np.exp(np.float64(log_mean)), 1e6
    grown = [np.log1p(np.arange(k) / theta).sum() for k in count]
    exact = grown - (theta + count) * np.log1p(mean / theta) + mean
    np.testing.assert_allclose(found - limit, exact, atol=1.2e-5)


def test_gradients_are_those_of_the_exact_density():
    """Fails if a branch that is not taken makes a gradient NaN, or if theta gets none."""
    count, log_mean, log_theta = grid()
    total = lambda m, t: jnp.sum(count_densities.negative_binomial(count, m, t))  # noqa: E731
    by_mean, by_theta = jax.jit(jax.grad(total, (0, 1)))(log_mean, log_theta)
    mean, theta = np.exp(np.float64(log_mean)), np.exp(np.float64(log_theta))
    expected = (count - mean) * theta / (theta + mean)
    # exp(log_mean) has a relative error of 1e-7 or so, and the gradient its product with the mean
    floor = 1e-6 + 1e-6 * mean * theta / (theta + mean)
    assert np.all(np.abs(np.asarray(by_mean) - expected) <= 2e-5 * np.abs(expected) + floor)
    grown = special.digamma(count + theta) - special.digamma(theta)
    expected = theta * (
        grown + np.log(theta) - np.log(theta + mean) + (mean - count) / (theta + mean)
    )
    some = (theta < 1e5) & (mean < 1e5)  # elsewhere the reference itself cancels
    np.testing.assert_allclose(np.asarray(by_theta)[some], expected[some], rtol=1e-3, atol=1e-4)
    assert np.all(np.isfinite(by_theta))


def test_densities_are_those_of_scvi_tools():
    """The arrays are frozen from scvi-tools (parity/freeze_scvi.py), which adds 1e-8 in logarithms.

    Fails if theta is the dispersion and not its inverse, or if the logit has the other sign.
    """
    frozen = json.loads((pathlib.Path(__file__).parent / "parity" / "scvi.json").read_text())
    count, mean, theta, logit = np.float32(frozen["rows"]).T
    found = jax.jit(count_densities.negative_binomial)(count, np.log(mean), np.log(theta))
    np.testing.assert_allclose(found, frozen["negative_binomial"], rtol=2e-5, atol=2e-5)
    zero = count_densities.negative_binomial(0 * count, np.log(mean), np.log(theta))
    inflated = jax.jit(count_densities.zero_inflated)(count, found, zero, logit)
    np.testing.assert_allclose(inflated, frozen["zero_inflated"], rtol=2e-5, atol=2e-5)


def test_zero_inflated_is_a_mixture():
    """Fails if the weight of the other zeros is taken for that of the counts."""
    random = np.random.default_rng(0)
    prediction = np.float32(random.normal(size=(5, 3, 2)) * [1.0, 3.0])
    target = random.integers(0, 3, (5, 3)).astype(np.float32)
    likelihood = likelihoods.ZeroInflated(likelihoods.Poisson())
    found = jax.jit(likelihood.log_prob)(prediction, target)
    wide = np.float64(prediction)
    other = special.expit(wide[..., 1])
    mass = (1 - other) * stats.poisson.pmf(target, np.exp(wide[..., 0])) + other * (target == 0)
    np.testing.assert_allclose(found, np.log(mass).sum(1), rtol=1e-5)
    far = jnp.asarray([[[-60.0, -200.0], [-60.0, 200.0]]])
    slopes = jax.value_and_grad(lambda p: likelihood.log_prob(p, jnp.ones((1, 2)))[0])
    value, slope = jax.jit(slopes)(far)
    assert np.isfinite(value)
    assert np.all(np.isfinite(slope))


def test_zero_inflation_needs_counts():
    with pytest.raises(UserError, match="not a distribution of counts"):
        likelihoods.ZeroInflated(likelihoods.Gaussian())


@pytest.mark.parametrize("freedom", [1.5, 4.0, 1e6])
def test_student_against_scipy(freedom):
    """Fails if the scale is squared, or if the constant is a difference of two large lgammas."""
    random = np.random.default_rng(0)
    prediction, target = np.float32(random.normal(size=(2, 5, 3)) * 4)
    likelihood = likelihoods.StudentT(freedom, floor=0.2)
    found = likelihood.apply({"params": {"raw_scale": 0.3}}, prediction, target, method="log_prob")
    scale = 0.2 + np.exp(np.float32(0.3))
    expected = stats.t.logpdf(np.float64(target), freedom, prediction, scale).sum(1)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-4)


def test_student_far_from_the_prediction():
    """Fails if a square overflows: the gradient is about (freedom + 1) / target."""
    likelihood = likelihoods.StudentT(4.0, floor=1.0)

    def value(target):
        given = {"params": {"raw_scale": 0.0}}, jnp.zeros((1, 1)), target[None, None]
        return likelihood.apply(*given, method="log_prob")[0]

    for target in (1e8, 1e12, 1e20, 1e35):
        found, slope = jax.value_and_grad(value)(jnp.float32(target))
        np.testing.assert_allclose(found, stats.t.logpdf(target, 4.0, 0.0, 2.0), rtol=1e-5)
        np.testing.assert_allclose(slope, -5.0 / target, rtol=1e-5)


def test_the_mean_of_counts_is_the_size_times_the_share():
    """Fails if a covariate is added to the size, or if the net also sees the size."""
    random = np.random.default_rng(0)
    z, covariate = np.float32(random.normal(size=(4, 3))), np.eye(2, dtype=np.float32)[[0, 1, 1, 0]]
    size = np.float32([[10.0], [200.0], [3.0], [1e4]])
    context = {"log_size": np.log(size), "batch": covariate}
    for shape in (5, (5, 2)):
        decoder = ae.nets.Shares(ae.nets.MLP((8,), shape=shape))

        @jax.jit
        def run(key, decoder=decoder):
            variables = decoder.init(key, z, context)
            other = {**context, "batch": 1.0 - covariate}
            return (
                variables,
                decoder.apply(variables, z, context),
                decoder.apply(variables, z, other),
            )

        variables, output, other = run(jax.random.key(0))
        kernel = variables["params"]["net"]["hidden_0"]["kernel"]
        assert kernel.shape == (3 + 2, 8)
        means = output if output.ndim == 2 else output[..., 0]
        np.testing.assert_allclose(np.exp(means).sum(1), size[:, 0], rtol=1e-5)
        assert not np.allclose(output, other)
    with pytest.raises(UserError, match="log_size"):
        decoder.apply(variables, z, covariate)
