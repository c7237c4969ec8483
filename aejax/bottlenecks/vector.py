"""Vector quantisation: each position of a code is the nearest vector of a codebook."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aejax.bottlenecks.positions import Positions, check_indices, straight_through
from aejax.checks import check, check_count
from aejax.contracts import NOTHING, Bottleneck, Given
from aejax.types import Array, Key


class VectorCode(NamedTuple):
    """Vectors of a codebook, and what they stand for."""

    z: Array  # f32[B, *positions, size], rows of the codebook; its gradient is that of encoded
    indices: Array  # i32[B, *positions], which rows
    encoded: Array  # f32[B, *positions, size], before quantisation

    @property
    def latent(self) -> Array:
        """What a prior gives a probability to, i32[B, *positions]."""
        return self.indices


class VectorQuantised(Bottleneck):
    """VQ-VAE: the nearest codebook vector, straight-through (van den Oord et al. 2017).

    The codebook is memory: a moving average of what chose each vector (appendix A.1), written in
    training alone; the decoder sees the one from before the batch. A vector that hardly anything
    chooses is dead and restarts at an encoded vector of the batch (Dhariwal et al. 2020, section
    3); at first all are dead, so the first batch sets them.

    Attributes:
      codes: vectors in the codebook.
      size: of one vector.
      positions: the shape in which one example's vectors stand. Features [B, *positions, channels]
        are projected position by position, any others as a whole.
      decay: of the moving average, a step.
      restart: a vector chosen less than this share of evenly often, on moving average, is dead.
      window: steps over which usage is counted: give those of an epoch.
    """

    codes: int
    size: int
    positions: Sequence[int] = (1,)
    decay: float = 0.99
    restart: float = 0.05
    window: int = 1000

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example's latent, the indices."""
        return tuple(self.positions)

    def setup(self) -> None:
        """Names the parts: the projection, and the memory.

        Raises:
          UserError: for numbers that there cannot be.
        """
        check_count(self, 1, "codes", "size", "window")
        check(self, "decay", lambda decay: 0 <= decay < 1, "a number from 0 to below 1")
        check(self, "restart", lambda restart: 0 <= restart < 1, "a number from 0 to below 1")
        self.encode = Positions(self.positions, self.size)
        zeros = jnp.zeros
        self.counts = self.variable("memory", "counts", zeros, (self.codes,))
        self.sums = self.variable("memory", "sums", zeros, (self.codes, self.size))
        self.chosen = self.variable("memory", "chosen", zeros, (self.codes,))
        self.last = self.variable("memory", "last", zeros, (self.codes,))
        self.steps = self.variable("memory", "steps", zeros, (), jnp.int32)

    def __call__(self, features: Array, key: Key | None, given: Given = NOTHING) -> VectorCode:
        """[B, ...] -> VectorCode; the key chooses where dead vectors restart, and nothing else."""
        encoded = self.encode(features)
        indices = nearest(encoded, self.codebook())
        z = straight_through(encoded, self.lift(indices))
        if self.is_mutable_collection("memory") and not self.is_initializing():
            rows = jax.lax.stop_gradient(encoded).reshape((-1, self.size))
            self._remember(rows, indices.reshape(-1), key)
        return VectorCode(z, indices, encoded)

    def lift(self, latent: Array, given: Given = NOTHING) -> Array:
        """Indices i32[B, *positions] -> their vectors f32[B, *positions, size]."""
        check_indices(self, latent)
        return jnp.take(self.codebook(), latent, axis=0)

    def codebook(self) -> Array:
        """The vectors, f32[codes, size]; zeros before the first batch."""
        counts = self.counts.value[:, None]
        set_already = counts > 0
        return jnp.where(set_already, self.sums.value / jnp.where(set_already, counts, 1.0), 0.0)

    def usage(self) -> Array:
        """How often each vector was chosen in the last whole window of steps, f32[codes]."""
        return self.last.value

    def _remember(self, rows: Array, indices: Array, key: Key | None) -> None:
        """Moves the averages by rows f32[R, size] that chose indices i32[R], and counts them."""
        new = jnp.zeros((self.codes,)).at[indices].add(1.0)
        # A batch that came before there were vectors chose nothing.
        new = jnp.where(jnp.any(self.counts.value > 0), new, 0.0)
        moved = jnp.zeros((self.codes, self.size)).at[indices].add(rows)
        counts = self.decay * self.counts.value + (1.0 - self.decay) * new
        sums = self.decay * self.sums.value + (1.0 - self.decay) * moved

        even = rows.shape[0] / self.codes
        dead = counts <= self.restart * even
        if key is not None:
            rows = jax.random.permutation(key, rows)
        # The n-th dead vector takes the n-th row; where there are more, rows serve again.
        turn = (jnp.cumsum(dead) - 1) % rows.shape[0]
        self.counts.value = jnp.where(dead, even, counts)
        self.sums.value = jnp.where(dead[:, None], even * jnp.take(rows, turn, axis=0), sums)

        steps, chosen = self.steps.value + 1, self.chosen.value + new
        whole = steps >= self.window
        self.last.value = jnp.where(whole, chosen, self.last.value)
        self.chosen.value = jnp.where(whole, 0.0, chosen)
        self.steps.value = jnp.where(whole, 0, steps)


def nearest(vectors: Array, codebook: Array) -> Array:
    """The nearest row of codebook f32[codes, size] to each of f32[..., size], i32[...].

    ||v - c||^2 without ||v||^2, which changes no order: one matrix product.
    """
    rows = vectors.reshape((math.prod(vectors.shape[:-1]), vectors.shape[-1]))
    # In full precision: accelerators would round both to bfloat16 and miss near neighbours.
    product = jnp.matmul(rows, codebook.T, precision="highest")
    distance = jnp.sum(jnp.square(codebook), axis=-1)[None] - 2.0 * product
    return jnp.argmin(distance, axis=-1).astype(jnp.int32).reshape(vectors.shape[:-1])
