"""The scale of inputs as a part of the model: a sparse autoencoder sees centred, scaled data."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from aejax.types import Array


class Statistics(NamedTuple):
    """What `Scale` remembers of the data."""

    mean: Array  # f32[D]
    factor: Array  # f32[], f32[D], or f32[D, D] for whitening
    inverse: Array  # of the factor, in its form
    gamma: Array  # f32[], ||mean|| / ||std||: large, and latents die unless the mean is removed


class Scale(nn.Module):
    """values -> (values - mean) * factor, remembered in memory, so every checkpoint is complete.

    As an encoder it prepares what the bottleneck sees; as `Dictionary(scale=Scale())` it brings the
    output back to the target's units. Both are the identity until `initialise.standardised` sets
    them from data: the encoder's from x, the dictionary's from the target. Neither is trained.
    """

    def __call__(self, values: Array, context: Any = None) -> Array:
        """[B, *event] -> f32[B, *event]."""
        flat = values.reshape((values.shape[0], -1)).astype(jnp.float32)
        statistics = self.statistics(flat.shape[-1])
        return multiply(flat - statistics.mean[None], statistics.factor).reshape(values.shape)

    def measure(self, differences: Array) -> Array:
        """Differences f32[B, D] of raw values in scaled units: the mean drops out."""
        return multiply(differences, self.statistics(differences.shape[-1]).factor)

    def restore(self, scaled: Array) -> Array:
        """Scaled values f32[B, D] in raw units."""
        statistics = self.statistics(scaled.shape[-1])
        return multiply(scaled, statistics.inverse) + statistics.mean[None]

    @nn.compact
    def statistics(self, size: int) -> Statistics:
        """The mean, factor, inverse and gamma of data with D values an example."""

        def one(name: str, value: Array) -> Array:
            return self.variable("memory", name, lambda: value).value

        return Statistics(
            one("mean", jnp.zeros((size,))),
            one("factor", jnp.ones(())),
            one("inverse", jnp.ones(())),
            one("gamma", jnp.zeros(())),
        )


def multiply(values: Array, factor: Array) -> Array:
    """values f32[B, D] times a factor f32[], f32[D] or f32[D, D]."""
    if factor.ndim == 2:
        return values @ factor
    return values * (factor[None] if factor.ndim == 1 else factor)
