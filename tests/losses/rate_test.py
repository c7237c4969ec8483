"""Tests of capacity and free bits against formulas in numpy."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax import losses
from aejax.bottlenecks import GaussianCode

B, L = 6, 5
MODEL = SimpleNamespace(prior=ae.priors.Standard(), posterior=None)
random = np.random.default_rng(0)
MEAN = random.normal(size=(B, L)) * np.linspace(0.1, 1.5, L)
LOG_STD = random.normal(size=(B, L)) * 0.3
KL = 0.5 * (MEAN**2 + np.exp(2 * LOG_STD) - 1) - LOG_STD


def forward(mean=MEAN, step=0):
    mean, log_std = jnp.asarray(mean, jnp.float32), jnp.asarray(LOG_STD, jnp.float32)
    x = jnp.zeros((B, 2))
    code = GaussianCode(mean, mean, log_std)
    return ae.Forward(ae.Batch(x, x), x, code, x, jnp.asarray(step), None)


def test_free_bits_take_the_batch_mean_inside_the_maximum():
    """Fails if the maximum is taken for each example, or over the sum of latents."""
    found = losses.free_bits(0.4)(MODEL, forward())
    expected = np.maximum(KL.mean(0), 0.4).sum()
    assert found.shape == (B,)
    np.testing.assert_allclose(found, np.full(B, expected), rtol=1e-5)
    assert abs(expected - np.maximum(KL, 0.4).sum(1).mean()) > 0.05
    np.testing.assert_allclose(losses.free_bits(0.0)(MODEL, forward())[0], KL.sum(1).mean(), 1e-5)


def test_free_bits_of_groups():
    """Fails if sizes are read as boundaries or from the end, or if a group takes every second
    latent.
    """
    means = KL.mean(0)
    found = losses.free_bits(0.9, (3, 1, 1))(MODEL, forward())
    expected = sum(max(g.sum(), 0.9) for g in (means[:3], means[3:4], means[4:]))
    np.testing.assert_allclose(found, np.full(B, expected), rtol=1e-5)
    whole = losses.free_bits(100.0, (5,))(MODEL, forward())
    np.testing.assert_allclose(whole, np.full(B, 100.0))


def test_what_is_free_has_no_gradient():
    gradient = jax.grad(lambda m: losses.free_bits(0.4)(MODEL, forward(m))[0])(jnp.asarray(MEAN))
    free = KL.mean(0) < 0.4
    assert 0 < free.sum() < L
    assert np.array_equal(np.any(np.asarray(gradient) != 0, axis=0), ~free)


@pytest.mark.parametrize(("step", "limit"), [(0, 0.0), (1, 2.5), (5, 12.5), (50, 25.0)])
def test_capacity_is_the_distance_of_the_mean_kl(step, limit):
    """Fails if the distance is taken for each example, or if the schedule does not get the step."""
    rising = losses.capacity(optax.linear_schedule(0.0, 25.0, 10))
    expected = abs(KL.sum(1).mean() - limit)
    np.testing.assert_allclose(rising(MODEL, forward(step=step)), np.full(B, expected), rtol=1e-5)
    np.testing.assert_allclose(losses.capacity(limit)(MODEL, forward())[0], expected, rtol=1e-5)


def test_refusals():
    """A bound over draws can use neither, just as it cannot use the closed KL."""
    with pytest.raises(ae.UserError, match="nats = -1"):
        losses.free_bits(-1)
    with pytest.raises(ae.UserError, match="nats = nan"):
        losses.free_bits(float("nan"))
    with pytest.raises(ae.UserError, match="have 4 latents, but the code has 5"):
        losses.free_bits(0.1, (2, 2))(MODEL, forward())
    for term in (losses.free_bits(0.1), losses.capacity(1.0)):
        assert losses.mark(term) == losses.Mark("ratio", sampled=False)
