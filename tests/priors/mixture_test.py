"""Tests of the mixture prior with unequal weights, means and deviations, against scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import priors

stats = pytest.importorskip("scipy.stats")

LOGITS = np.array([2.0, 0.0, -2.0])
WEIGHTS = np.exp(LOGITS) / np.exp(LOGITS).sum()
MEANS = np.array([[-3.0, 0.0], [0.0, 0.0], [3.0, 1.0]])


def mixture(log_std=0.0):
    """Makes the bound prior; the deviations are exp(log_std), equal in both coordinates."""
    log_std = np.broadcast_to(np.reshape(log_std, (-1, 1)), MEANS.shape)
    params = {"logits": LOGITS, "mean": MEANS, "log_std": log_std}
    params = {name: jnp.asarray(value, jnp.float32) for name, value in params.items()}
    return priors.Mixture(3).bind({"params": params})


def test_the_density_at_a_mean_by_hand():
    """log(0.867 N(0) + ...) at the heaviest mean.

    Fails if components have equal weights: -2.9254.
    """
    found = mixture().log_prob(jnp.asarray([[-3.0, 0.0]]))
    np.testing.assert_allclose(found, [-1.9793], atol=5e-5)


@pytest.mark.parametrize("log_std", [0.0, (0.4, -0.7, 0.1)])
def test_the_density_against_scipy(log_std):
    """Fails if a component has the weight or deviation of another."""
    z = np.random.default_rng(0).normal(size=(7, 2), scale=3.0).astype(np.float32)
    std = np.exp(np.broadcast_to(log_std, 3))
    each = [
        weight * stats.multivariate_normal(mean, s**2 * np.eye(2)).pdf(np.float64(z))
        for weight, mean, s in zip(WEIGHTS, MEANS, std, strict=True)
    ]
    np.testing.assert_allclose(mixture(log_std).log_prob(z), np.log(sum(each)), rtol=1e-5)


def test_samples_choose_components_by_their_weights():
    """All moments up to the second agree within four standard errors.

    Fails if components are chosen evenly, where the first coordinate's mean is 0 and not -2.553, or
    if one choice serves all samples.
    """
    n, log_std = 20_000, (0.4, -0.7, 0.1)
    drawn = np.asarray(mixture(log_std).sample(jax.random.key(0), n, (2,)), np.float64)
    assert drawn.shape == (n, 2)
    variances = np.exp(2 * np.asarray(log_std))
    seconds = MEANS[:, :, None] * MEANS[:, None] + variances[:, None, None] * np.eye(2)
    mean, second = WEIGHTS @ MEANS, np.tensordot(WEIGHTS, seconds, 1)
    assert mean[0] == pytest.approx(-2.553, abs=5e-4)
    assert np.all(np.abs(drawn.mean(0) - mean) < 4 * drawn.std(0) / n**0.5)
    products = drawn[:, :, None] * drawn[:, None]
    assert np.all(np.abs(products.mean(0) - second) < 4 * products.std(0) / n**0.5)
