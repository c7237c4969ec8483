"""What quantised bottlenecks share: vectors at positions, and the gradient past the rounding."""

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
    """Features -> f32[B, *positions, size], linear."""

    positions: Sequence[int]
    size: int

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Position by position where the features stand so, else as a whole."""
        positions = tuple(self.positions)
        if features.ndim > 2 and features.shape[1:-1] == positions:
            return nn.Dense(self.size, name="dense")(features.astype(jnp.float32))
        flat = flatten(features).astype(jnp.float32)
        whole = nn.Dense(math.prod(positions) * self.size, name="dense")(flat)
        return whole.reshape((-1, *positions, self.size))


def check_indices(part: Any, latent: Array) -> None:
    """Raises UserError for latents that number no codes."""
    if not jnp.issubdtype(latent.dtype, jnp.integer):
        raise UserError(
            f"the latents of {type(part).__name__} are the numbers of codes, but these are of "
            f"{latent.dtype}: give it a prior of integers, or none"
        )


def straight_through(encoded: Array, quantised: Array) -> Array:
    """The quantised values, to the bit, with the gradient of the encoded (Bengio et al. 2013)."""
    return jax.lax.stop_gradient(quantised) + (encoded - jax.lax.stop_gradient(encoded))
