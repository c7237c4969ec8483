"""The normal distribution per element: its log-density, its KL, and its parameters from a net."""

from __future__ import annotations

import math

import jax.numpy as jnp

from aejax.types import Array

LOG_2PI = math.log(2.0 * math.pi)
# Log standard deviations that a net predicts are kept near this range; see `bounded`.
LOG_STD_RANGE = (-10.0, 4.0)


def bounded(log_std: Array, low: float = LOG_STD_RANGE[0], high: float = LOG_STD_RANGE[1]) -> Array:
    """Returns log standard deviations that a net predicts, kept near a range by a soft clamp.

    A value in [low, high] is unchanged, to the bit. A value above `high` is replaced by
    high + log(1 + value - high), and a value below `low` by low - log(1 + low - value). The
    exponential of a large prediction therefore grows only linearly with the prediction, so that it
    does not overflow when a net that was just initialised sees inputs in the hundreds. The gradient
    of the clamp is never 0.

    Args:
      log_std: the predictions, f32[...].
      low: the smallest value that is unchanged.
      high: the largest value that is unchanged. The default is meant for latents: a posterior
        wider than exp(4) = 55 costs more than 1,400 nats under a standard normal prior.

    Returns:
      The log standard deviations, f32[...].
    """
    above = jnp.log(1.0 + jnp.maximum(log_std - high, 0.0))
    below = jnp.log(1.0 + jnp.maximum(low - log_std, 0.0))
    return jnp.minimum(jnp.maximum(log_std, low), high) + above - below


def mean_and_log_std(statistics: Array) -> tuple[Array, Array]:
    """Splits a net's output [..., 2 L] into means and `bounded` log standard deviations."""
    mean, log_std = jnp.split(statistics, 2, axis=-1)
    return mean, bounded(log_std)


def normal_log_prob(value: Array, mean: Array, log_std: Array) -> Array:
    """Computes the log-density of a normal distribution per element; all shapes must agree."""
    scaled = (value - mean) * jnp.exp(-log_std)
    return -0.5 * (jnp.square(scaled) + LOG_2PI) - log_std


def normal_kl(mean: Array, log_std: Array, to_mean: Array, to_log_std: Array) -> Array:
    """Computes KL(N(mean, std^2) || N(to_mean, to_std^2)) per element; all shapes must agree."""
    ratio = log_std - to_log_std
    moved = jnp.square((mean - to_mean) * jnp.exp(-to_log_std))
    return 0.5 * (moved + jnp.exp(2.0 * ratio) - 1.0) - ratio
