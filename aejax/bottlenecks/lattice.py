"""Finite scalar quantisation: each coordinate of a code is rounded to one of a few levels."""

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
    """Quantised points with their indices in the lattice, the set of all combinations of levels."""

    z: Array  # f32[B, *positions, len(levels)], in [-1, 1]; gradients pass the rounding unchanged
    indices: Array  # i32[B, *positions], the index of each point, from 0

    @property
    def latent(self) -> Array:
        """Returns the indices, i32[B, *positions], which are the variable that a prior models."""
        return self.indices

    def log_q(self, stick: bool = False) -> Array:
        """Returns zeros, f32[B]: the indices are certain given x, so their probability is 1.

        Args:
          stick: ignored, since q has no parameters that receive a gradient.
        """
        return jnp.zeros(self.indices.shape[:1])


class FiniteScalarQuantised(Bottleneck):
    """Finite scalar quantisation (FSQ): each coordinate is squashed by tanh and rounded to a level.

    The gradient passes the rounding unchanged (straight-through). Every combination of levels is a
    code, so neither a learned codebook nor a commitment term is needed (Mentzer et al. 2024,
    section 3).

    Attributes:
      levels: the number of levels of each coordinate, 2 to 1,000; (8, 5, 5, 5) gives 1,000 codes.
      positions: the shape of one example's grid of points. Features [B, *positions, channels] are
        projected at each position; features of any other shape are flattened and projected.
    """

    levels: Sequence[int]
    positions: Sequence[int] = (1,)

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the shape of one example's latent, the indices."""
        return tuple(self.positions)

    @property
    def codes(self) -> int:
        """Returns the number of points of the lattice."""
        return math.prod(self.levels)

    def setup(self) -> None:
        """Checks the levels and declares the projection.

        Raises:
          UserError: if a coordinate has fewer than 2 or more than 1000 levels, or if the largest
            index does not fit int32.
        """
        # With more than 1000 levels, the margin of 1e-3 in `__call__` would exceed half a level.
        if not self.levels or min(self.levels) < 2 or max(self.levels) > 1000:
            raise UserError(
                f"FiniteScalarQuantised has levels {tuple(self.levels)}: give each coordinate 2 to "
                "1000 levels"
            )
        if self.codes > 2**31 - 1:  # indices are int32
            raise UserError(
                f"FiniteScalarQuantised has levels {tuple(self.levels)}, {self.codes} codes: give "
                "fewer levels or coordinates, at most 2147483647 codes in all"
            )
        self.encode = Positions(self.positions, len(self.levels))

    def __call__(self, features: Array, key: Key | None, given: Given = NOTHING) -> LatticeCode:
        """Quantises features [B, ...]; the key is not used."""
        encoded = self.encode(features)
        levels = np.asarray(self.levels, np.float32)
        # The range extends slightly beyond the outermost levels, so that tanh can reach these.
        half = (levels - 1.0) * (1.0 + 1e-3) / 2.0
        # The levels are consecutive integers that start at -(levels // 2), so the centre of an
        # even number of them is -0.5.
        offset = np.where(levels % 2 == 0, 0.5, 0.0).astype(np.float32)
        # The shift makes an encoded value of 0 fall on a level. A coordinate with 2 levels has no
        # shift, so that the threshold between its levels is at 0; otherwise all values near 0 would
        # have the same level.
        shift = np.where(levels == 2, 0.0, np.arctanh(offset / half)).astype(np.float32)
        around = (1,) * (encoded.ndim - 1)
        half, offset, shift = (a.reshape((*around, -1)) for a in (half, offset, shift))
        bounded = half * jnp.tanh(encoded + shift) - offset
        middle = levels // 2
        digits = jnp.round(jax.lax.stop_gradient(bounded)) + middle.reshape((*around, -1))
        indices = jnp.sum(digits.astype(jnp.int32) * self._basis(encoded.ndim), axis=-1)
        z = straight_through(bounded / middle.reshape((*around, -1)), self.lift(indices))  # pyright: ignore[reportArgumentType]
        return LatticeCode(z, indices.astype(jnp.int32))

    def lift(self, latent: Array, given: Given = NOTHING) -> Array:
        """Returns the points f32[B, *positions, len(levels)] of indices i32[B, *positions]."""
        check_indices(self, latent)
        levels = np.asarray(self.levels, np.int32).reshape((*(1,) * latent.ndim, -1))
        digits = (latent[..., None] // self._basis(latent.ndim + 1)) % levels
        return (digits - levels // 2).astype(jnp.float32) / (levels // 2)

    def _basis(self, ndim: int) -> np.ndarray:
        """Returns the factor of each coordinate in a point's index, i32[1, ..., len(levels)].

        The index of a point is the sum over the coordinates of level * factor. The result has
        `ndim` axes.
        """
        basis = np.cumprod([1, *self.levels[:-1]]).astype(np.int32)
        return basis.reshape((*(1,) * (ndim - 1), -1))
