"""The bottleneck of the standard autoencoder: one deterministic point."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from aejax.contracts import NOTHING, Given, VectorBottleneck
from aejax.events import flatten
from aejax.types import Array, Key


class PointCode(NamedTuple):
    """A deterministic code, which has no density."""

    z: Array  # f32[B, L]

    @property
    def latent(self) -> Array:
        """Returns z, f32[B, L], the value at which a prior evaluates its density."""
        return self.z


class Point(VectorBottleneck):
    """Maps the features linearly to a deterministic code of `latents` values."""

    @nn.compact
    def __call__(self, features: Array, key: Key | None, given: Given = NOTHING) -> PointCode:
        """Maps features [B, ...] to a code with z f32[B, latents]; the key is not used."""
        return PointCode(nn.Dense(self.latents, name="mean")(flatten(features).astype(jnp.float32)))
