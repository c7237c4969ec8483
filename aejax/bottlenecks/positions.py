"""What quantised bottlenecks share: vectors on a grid, and the straight-through gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.errors import UserError
from aejax.events import flatten
from aejax.types import Array


class Positions(nn.Module):
    """Maps features linearly to a grid of vectors, f32[B, *positions, size].

    Attributes:
      positions: the shape of the grid that holds one example's vectors.
      size: the size of each vector.
    """

    positions: Sequence[int]
    size: int

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Projects features to a grid of vectors, f32[B, *positions, size].

        Features [B, *positions, channels] are projected at each position; features of another shape
        are flattened and projected as a whole.
        """
        positions = tuple(self.positions)
        if features.ndim > 2 and features.shape[1:-1] == positions:
            return nn.Dense(self.size, name="dense")(features.astype(jnp.float32))
        flat = flatten(features).astype(jnp.float32)
        whole = nn.Dense(math.prod(positions) * self.size, name="dense")(flat)
        return whole.reshape((-1, *positions, self.size))


def check_indices(part: Any, latent: Array) -> None:
    """Raises UserError unless the latents are integers, because they are indices of codes.

    Args:
      part: the bottleneck, whose class name the message contains.
      latent: the array to check.
    """
    if not jnp.issubdtype(latent.dtype, jnp.integer):
        raise UserError(
            f"the latents of {type(part).__name__} are integer indices of codes, but these have "
            f"dtype {latent.dtype}: give the model a prior over integers, or no prior"
        )


def straight_through(encoded: Array, quantised: Array) -> Array:
    """Returns `quantised`, whose gradient flows to `encoded` unchanged (Bengio et al. 2013)."""
    return jax.lax.stop_gradient(quantised) + (encoded - jax.lax.stop_gradient(encoded))
