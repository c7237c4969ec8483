"""Scales data inside the model, so that a sparse autoencoder sees standardised values."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from aejax.checks import check_size
from aejax.types import Array


class Statistics(NamedTuple):
    """The mean of the data and the factor that scales it, as `Scale` stores them."""

    mean: Array  # f32[D]
    factor: Array  # f32[], f32[D], or f32[D, D] for whitening
    inverse: Array  # the inverse of the factor, of the same shape
    gamma: Array  # f32[], ||mean|| / ||std||; if it is large, many latents die if the mean is kept


class Scale(nn.Module):
    """Computes (values - mean) * factor with statistics stored in the collection "memory".

    As an encoder it scales the bottleneck's input; as `Dictionary(scale=Scale())` it converts the
    output back to the target's units. Both are the identity until `initialise.standardised` sets
    their statistics from data, the encoder's from x and the dictionary's from the target.
    Statistics are saved in checkpoints and not trained.
    """

    def __call__(self, values: Array, context: Any = None) -> Array:
        """Scales values [B, *event] to f32[B, *event]."""
        flat = values.reshape((values.shape[0], -1)).astype(jnp.float32)
        statistics = self.statistics(flat.shape[-1])
        return multiply(flat - statistics.mean[None], statistics.factor).reshape(values.shape)

    def measure(self, differences: Array, context: Any = None) -> Array:
        """Scales differences f32[B, D] between unscaled values, in which the mean cancels."""
        return multiply(differences, self.statistics(differences.shape[-1]).factor)

    def restore(self, scaled: Array, context: Any = None) -> Array:
        """Converts scaled values f32[B, D] back to the data's units."""
        statistics = self.statistics(scaled.shape[-1])
        return multiply(scaled, statistics.inverse) + statistics.mean[None]

    @nn.compact
    def statistics(self, size: int) -> Statistics:
        """Returns the stored mean and factor of data with `size` values per example."""
        check_size(self, "mean", 0, size, collection="memory")

        def one(name: str, value: Array) -> Array:
            return self.variable("memory", name, lambda: value).value

        return Statistics(
            one("mean", jnp.zeros((size,))),
            one("factor", jnp.ones(())),
            one("inverse", jnp.ones(())),
            one("gamma", jnp.zeros(())),
        )


def multiply(values: Array, factor: Array) -> Array:
    """Multiplies values f32[B, D] by a factor f32[] or f32[D], or by a matrix f32[D, D]."""
    if factor.ndim == 2:
        return values @ factor
    return values * (factor[None] if factor.ndim == 1 else factor)
