"""The likelihood of counts whose logarithms are Gaussian, a usual choice beside count models."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.contracts import Likelihood
from aejax.events import sum_events
from aejax.types import Array, Key, Support


class LogGaussian(Likelihood):
    """The mass that a Gaussian of log(1 + x) has between count - 1/2 and count + 1/2.

    The prediction is the mean of log(1 + x), and one standard deviation is learned. All that lies
    below 1/2 is the mass of 0, so that the masses of all counts add up to one.
    """

    support = Support(0.0, math.inf, whole=True)

    @nn.compact
    def _log_std(self) -> Array:
        return self.param("log_std", nn.initializers.zeros_init(), ())

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Computes the log-probability of the counts, f32[B]."""
        std = jnp.exp(self._log_std())
        low, high = ((jnp.log1p(target + shift) - prediction) / std for shift in (-0.5, 0.5))
        # Above the mean both ends are mirrored, so that the difference keeps its digits; a count of
        # 0 has all the mass below 1/2.
        some = target > 0
        above = some & (low > 0)
        low, high = jnp.where(above, -high, low), jnp.where(above, -low, high)
        upper, lower = jax.scipy.stats.norm.logcdf(high), jax.scipy.stats.norm.logcdf(low)
        apart = jnp.where(some, jnp.minimum(lower - upper, -1e-6), -1.0)
        inside = upper + jnp.where(some, jnp.log(-jnp.expm1(apart)), 0.0)
        return sum_events(inside, mask)

    def mean(self, prediction: Array) -> Array:
        """Returns exp(prediction) - 1, the median."""
        return jnp.maximum(jnp.expm1(prediction), 0.0)

    def sample(self, key: Key, prediction: Array) -> Array:
        """Draws counts, f32[B, *event]."""
        noise = jnp.exp(self._log_std()) * jax.random.normal(key, prediction.shape)
        return jnp.maximum(jnp.round(jnp.expm1(prediction + noise)), 0.0)
