"""The normal distribution, per element: its log-density and a KL divergence in closed form."""

from __future__ import annotations

import math

import jax.numpy as jnp

from aejax.types import Array

LOG_2PI = math.log(2.0 * math.pi)


def normal_log_prob(value: Array, mean: Array, log_std: Array) -> Array:
    """Computes the log-density of a normal distribution per element; all shapes must agree."""
    scaled = (value - mean) * jnp.exp(-log_std)
    return -0.5 * (jnp.square(scaled) + LOG_2PI) - log_std


def normal_kl(mean: Array, log_std: Array, to_mean: Array, to_log_std: Array) -> Array:
    """Computes KL(N(mean, std^2) || N(to_mean, to_std^2)) per element; all shapes must agree."""
    ratio = log_std - to_log_std
    moved = jnp.square((mean - to_mean) * jnp.exp(-to_log_std))
    return 0.5 * (moved + jnp.exp(2.0 * ratio) - 1.0) - ratio
