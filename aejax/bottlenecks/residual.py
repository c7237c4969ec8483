"""Residual vector quantisation: each codebook quantises what the ones before it left over."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from aejax.bottlenecks.positions import Positions, check_indices, straight_through
from aejax.bottlenecks.vector import VectorCode, VectorQuantised
from aejax.checks import check_count
from aejax.contracts import NOTHING, Bottleneck, Given
from aejax.types import Array, Key


class ResidualQuantised(Bottleneck):
    """Replaces each encoded vector by a sum of vectors, one of each codebook.

    See Zeghidour et al. 2021 (SoundStream), algorithm 1; the codebooks are those of
    `VectorQuantised`. With n codebooks of C vectors a position has C^n values, and more codebooks
    make the error smaller. Use `losses.commitment`, which is that of the sum.

    Attributes:
      codes: the number of vectors in each codebook.
      size: the size of each vector.
      codebooks: the number of codebooks.
      positions: the shape of one example's grid of vectors, as in `VectorQuantised`.
      decay: the factor by which the moving averages decay in each step.
      restart: how rarely a vector is chosen that is replaced, as in `VectorQuantised`.
      window: the number of steps over which `usage` counts choices.
    """

    codes: int
    size: int
    codebooks: int = 2
    positions: Sequence[int] = (1,)
    decay: float = 0.99
    restart: float = 0.05
    window: int = 1000

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the shape of one example's latent: an index for each position and codebook."""
        return (*self.positions, self.codebooks)

    def setup(self) -> None:
        """Declares the projection and the codebooks.

        Raises:
          UserError: if an attribute is out of range.
        """
        check_count(self, 1, "codebooks")
        self.encode = Positions(self.positions, self.size)
        numbers = (self.codes, self.size, self.positions, self.decay, self.restart, self.window)
        self.levels = [VectorQuantised(*numbers) for _ in range(self.codebooks)]

    def __call__(self, features: Array, key: Key | None, given: Given = NOTHING) -> VectorCode:
        """Quantises features [B, ...]; the key only draws the replacements of dead vectors."""
        encoded = self.encode(features)
        keys = (None,) * self.codebooks if key is None else jax.random.split(key, self.codebooks)
        left, indices, parts = jax.lax.stop_gradient(encoded), [], []
        for level, own in zip(self.levels, keys, strict=True):
            code = level.quantise(left, own)
            left = left - code.z
            indices.append(code.indices)
            parts.append(code.z)
        z = straight_through(encoded, sum(parts[1:], parts[0]))
        return VectorCode(z, jnp.stack(indices, axis=-1), encoded)

    def lift(self, latent: Array, given: Given = NOTHING) -> Array:
        """Returns the sums of vectors, f32[B, *positions, size], of indices i32[B, ..., n]."""
        check_indices(self, latent)
        parts = [level.lift(latent[..., i]) for i, level in enumerate(self.levels)]
        return sum(parts[1:], parts[0])

    def usage(self) -> Array:
        """Returns how often each vector was chosen in the last window, f32[codebooks * codes]."""
        return jnp.concatenate([level.usage() for level in self.levels])
