"""Planar flows: each step moves z along a vector u, as a function of the inner product w z."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.bottlenecks.flow import Base, FlowCode, flow
from aejax.checks import check_count
from aejax.contracts import NOTHING, Given, VectorBottleneck
from aejax.types import Array, Key


class PlanarStep(nn.Module):
    """One step of the flow: z + u tanh(w z + b); a linear layer maps features to u, w and b.

    Source: Rezende and Mohamed 2015, equation 10.
    """

    @nn.compact
    def __call__(self, z: Array, features: Array) -> tuple[Array, Array]:
        """Maps z f32[B, L] and features f32[B, D] to z' f32[B, L] and log|det| f32[B]."""
        count = z.shape[-1]
        numbers = nn.Dense(2 * count + 1, name="parameters")(features)
        u, w, b = jnp.split(numbers, (count, 2 * count), axis=-1)
        # The step is invertible if w u > -1, which appendix A.1 ensures by moving u along w. The
        # margin 1e-4 keeps the determinant from rounding to 0.
        product = jnp.sum(w * u, axis=-1, keepdims=True)
        moved = jax.nn.softplus(product) - (1.0 - 1e-4)
        norm = jnp.sum(jnp.square(w), axis=-1, keepdims=True)
        u = u + (moved - product) * w / (norm + 1e-6)
        height = jnp.tanh(jnp.sum(w * z, axis=-1, keepdims=True) + b)
        slope = (1.0 - jnp.square(height)) * jnp.sum(w * u, axis=-1, keepdims=True)
        return z + u * height, jnp.log1p(slope)[:, 0]


class Planar(VectorBottleneck):
    """A diagonal Gaussian, transformed by planar flows whose parameters depend on the features.

    Attributes:
      latents: the number of latents L.
      flows: the number of steps.
    """

    flows: int = 4

    @nn.compact
    def __call__(self, features: Array, key: Key | None, given: Given = NOTHING) -> FlowCode:
        """Draws the code of features [B, ...]; without a key the steps transform the base mean."""
        check_count(self, 0, "flows")
        steps = [PlanarStep(name=f"flow_{i}") for i in range(self.flows)]
        return flow(Base(self.latents, name="base"), steps, features, key)
