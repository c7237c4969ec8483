"""Tests the autoregressive likelihood of sounds against entropies that are known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax import UserError

LEVELS = 16
WAVE = ae.likelihoods.Wave(
    ae.likelihoods.LogisticMixture(2, LEVELS), hop=4, conditioning=2, channels=3, reach=5, layers=1
)


@pytest.fixture(scope="module")
def made():
    random = np.random.default_rng(0)
    target = (random.integers(0, LEVELS, (3, 12, 1)) / (LEVELS - 1)).astype(np.float32)
    prediction = random.normal(size=(3, 3, 2)).astype(np.float32)
    init = jax.jit(lambda key: WAVE.init(key, prediction, target, method="log_prob"))
    variables = jax.tree.map(
        lambda a: a + 0.5 * random.normal(size=a.shape).astype(np.float32),
        init(jax.random.key(0)),
    )
    return variables, prediction, target


def test_a_sample_depends_on_the_samples_before_it_and_on_its_frame_alone(made):
    """Fails if a filter sees the sample itself, or fewer than `reach` samples."""
    variables, prediction, target = made
    read = jax.jit(lambda p, t: WAVE.apply(variables, p, t, method="parameters"))
    clean = np.asarray(read(prediction, target))
    for place in (0, 6, 11):
        other = target.copy()
        other[:, place] = 1.0 - other[:, place]
        moved = np.any(np.asarray(read(prediction, other)) != clean, axis=(0, 2, 3))
        assert np.array_equal(np.flatnonzero(moved), np.arange(place + 1, min(place + 6, 12)))
    frame = prediction.copy()
    frame[:, 1] += 1.0
    moved = np.any(np.asarray(read(frame, target)) != clean, axis=(0, 2, 3))
    assert np.array_equal(np.flatnonzero(moved), np.arange(4, 8))


@pytest.mark.slow
def test_bits_of_a_known_noise_are_its_entropy():
    """A linear predictor learns x_t = rounded (0.9 x_{t-1} + noise) up to 0.01 bits a sample.

    The noise is logistic with a scale of 3 of 256 levels. Fails if bits count masked samples.
    """
    random = np.random.default_rng(1)
    levels, scale, n, size = 256, 3.0, 64, 512
    noise = random.logistic(scale=scale, size=(n, size))
    values = np.full((n, size + 1), 127.0)
    for t in range(size):
        mean = 127.5 + 0.9 * (values[:, t] - 127.5)
        values[:, t + 1] = np.clip(np.round(mean + noise[:, t]), 0, 255)
    x = (values[:, 1:, None] / 255.0).astype(np.float32)
    mean = 127.5 + 0.9 * (values[:, :-1] - 127.5)

    def mass(edge):
        return 1.0 / (1.0 + np.exp(-(edge - mean) / scale))

    entropy = -np.mean(np.log2(mass(values[:, 1:] + 0.5) - mass(values[:, 1:] - 0.5)))
    likelihood = ae.likelihoods.Wave(
        ae.likelihoods.DiscretisedLogistic(levels), hop=64, conditioning=0, channels=0, reach=2
    )
    blank = jnp.zeros((n, size // 64, 1))
    mask = np.ones((n, size, 1), np.float32)
    mask[:, -64:] = 0.0
    padded = np.where(mask > 0, x, 0.0)

    def cost(params, target, mask):
        log_prob = likelihood.apply(params, blank, target, mask, method="log_prob")
        return -jnp.sum(log_prob) / jnp.sum(jnp.asarray(mask)) / jnp.log(2.0)

    params = likelihood.init(jax.random.key(0), blank, x, method="log_prob")
    tx = optax.adam(optax.cosine_decay_schedule(0.05, 400))

    @jax.jit
    def fit(params):
        def step(carried, _):
            params, state = carried
            updates, state = tx.update(jax.grad(cost)(params, x, mask), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), length=400)[0][0]

    params = fit(params)
    inner = -np.mean(np.log2(mass(values[:, 1:] + 0.5) - mass(values[:, 1:] - 0.5))[:, :-64])
    found = float(cost(params, padded, mask))
    assert abs(found - inner) < 0.01, (found, inner, entropy)


def test_sounds_of_another_length_are_refused():
    with pytest.raises(UserError, match="multiple of the hop"):
        WAVE.shape((13, 1))
