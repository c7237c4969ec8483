"""Finite scalar quantisation: each number of a code is rounded to one of a few levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.bottlenecks.positions import Positions, check_indices, straight_through
from aejax.contracts import NOTHING, Bottleneck, Given
from aejax.errors import UserError
from aejax.types import Array, Key


class LatticeCode(NamedTuple):
    """Points of a lattice."""

    z: Array  # f32[B, *positions, len(levels)], in [-1, 1]; its gradient is that before rounding
    indices: Array  # i32[B, *positions], the points' numbers, from 0

    @property
    def latent(self) -> Array:
        """What a prior gives a probability to, i32[B, *positions]."""
        return self.indices


class FiniteScalarQuantised(Bottleneck):
    """FSQ: numbers squashed and rounded, straight-through (Mentzer et al. 2024, section 3).

    The codebook is the grid of all combinations: no memory, no commitment, nothing to collapse.

    Attributes:
      levels: of each number, from 2 to 1,000; (8, 5, 5, 5) has 1,000 codes.
      positions: the shape in which one example's points stand. Features [B, *positions, channels]
        are projected position by position, any others as a whole.
    """

    levels: Sequence[int]
    positions: Sequence[int] = (1,)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example's latent, the indices."""
        return tuple(self.positions)

    @property
    def codes(self) -> int:
        """How many points the lattice has."""
        return math.prod(self.levels)

    def setup(self) -> None:
        """Names the projection.

        Raises:
          UserError: for numbers of levels that there cannot be.
        """
        # With more, the margin beyond the outermost levels would hold one more of them.
        if not self.levels or min(self.levels) < 2 or max(self.levels) > 1000:
            raise UserError(
                f"FiniteScalarQuantised has levels {tuple(self.levels)}: give each number "
                "from 2 to 1000 of them"
            )
        if self.codes > 2**31 - 1:  # indices are int32, and the points are looked up by them
            raise UserError(
                f"FiniteScalarQuantised has levels {tuple(self.levels)}, {self.codes} codes: give "
                "fewer levels or numbers, at most 2147483647 codes in all"
            )
        self.encode = Positions(self.positions, len(self.levels))

    def __call__(self, features: Array, key: Key | None, given: Given = NOTHING) -> LatticeCode:
        """[B, ...] -> LatticeCode; the key is not used."""
        encoded = self.encode(features)
        levels = np.asarray(self.levels, np.float32)
        # Slightly beyond the outermost levels, so that these can be reached.
        half = (levels - 1.0) * (1.0 + 1e-3) / 2.0
        # An even number of levels has none at 0: levels are the integers from -levels / 2 on.
        offset = np.where(levels % 2 == 0, 0.5, 0.0).astype(np.float32)
        shift = np.arctanh(offset / half)
        around = (1,) * (encoded.ndim - 1)
        half, offset, shift = (a.reshape((*around, -1)) for a in (half, offset, shift))
        bounded = half * jnp.tanh(encoded + shift) - offset
        middle = levels // 2
        digits = jnp.round(jax.lax.stop_gradient(bounded)) + middle.reshape((*around, -1))
        indices = jnp.sum(digits.astype(jnp.int32) * self._basis(encoded.ndim), axis=-1)
        z = straight_through(bounded / middle.reshape((*around, -1)), self.lift(indices))  # pyright: ignore[reportArgumentType]
        return LatticeCode(z, indices.astype(jnp.int32))

    def lift(self, latent: Array, given: Given = NOTHING) -> Array:
        """Indices i32[B, *positions] -> their points f32[B, *positions, len(levels)]."""
        check_indices(self, latent)
        levels = np.asarray(self.levels, np.int32).reshape((*(1,) * latent.ndim, -1))
        digits = (latent[..., None] // self._basis(latent.ndim + 1)) % levels
        return (digits - levels // 2).astype(jnp.float32) / (levels // 2)

    def _basis(self, ndim: int) -> np.ndarray:
        """What one step of each digit adds to the index, i32[1, ..., len(levels)]."""
        basis = np.cumprod([1, *self.levels[:-1]]).astype(np.int32)
        return basis.reshape((*(1,) * (ndim - 1), -1))
