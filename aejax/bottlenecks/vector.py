"""Vector quantisation: each position of a code holds the nearest vector of a codebook."""

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
    """The chosen codebook vectors, with their indices and the encoded vectors that they replace."""

    z: Array  # f32[B, *positions, size], rows of the codebook; its gradient goes to `encoded`
    indices: Array  # i32[B, *positions], the rows' indices in the codebook
    encoded: Array  # f32[B, *positions, size], the vectors before quantisation

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


class VectorQuantised(Bottleneck):
    """Replaces each encoded vector by the nearest codebook vector (VQ-VAE).

    See van den Oord et al. 2017. The gradient passes the replacement unchanged (straight-through).
    The codebook is not a parameter. It is stored in the variable collection `memory`, and each of
    its vectors is a moving average of the encoded vectors that were nearest to it (appendix A.1).
    It is updated in training only, after the batch was quantised. A codebook vector that is hardly
    ever chosen is dead, and is replaced by an encoded vector of the batch (Dhariwal et al. 2020,
    section 3). At first all vectors are dead, so the first batch initialises them.

    Attributes:
      codes: the number of vectors in the codebook.
      size: the size of each vector.
      positions: the shape of one example's grid of vectors. Features [B, *positions, channels] are
        projected at each position; features of any other shape are flattened and projected.
      decay: the factor by which the moving averages decay in each step.
      restart: a vector is dead if the moving average of how often a batch chooses it is at most
        `restart` times what it would be if all vectors were chosen equally often.
      window: the number of steps over which `usage` counts choices; an epoch is a good choice.
    """

    codes: int
    size: int
    positions: Sequence[int] = (1,)
    decay: float = 0.99
    restart: float = 0.05
    window: int = 1000

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the shape of one example's latent, the indices."""
        return tuple(self.positions)

    def setup(self) -> None:
        """Checks the attributes, and declares the projection and the running averages.

        Raises:
          UserError: if an attribute is out of range.
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
        """Quantises features [B, ...]; the key only draws the replacements of dead vectors."""
        return self.quantise(self.encode(features), key)

    def quantise(self, encoded: Array, key: Key | None) -> VectorCode:
        """Quantises vectors f32[B, *positions, size], as if they were already projected."""
        indices = nearest(encoded, self.codebook())
        z = straight_through(encoded, self.lift(indices))
        if self.is_mutable_collection("memory") and not self.is_initializing():
            rows = jax.lax.stop_gradient(encoded).reshape((-1, self.size))
            self._remember(rows, indices.reshape(-1), key)
        return VectorCode(z, indices, encoded)

    def lift(self, latent: Array, given: Given = NOTHING) -> Array:
        """Returns the codebook vectors f32[B, *positions, size] of indices i32[B, *positions]."""
        check_indices(self, latent)
        return jnp.take(self.codebook(), latent, axis=0)

    def codebook(self) -> Array:
        """Returns the codebook, f32[codes, size], which is zero before the first batch."""
        counts = self.counts.value[:, None]
        set_already = counts > 0
        return jnp.where(set_already, self.sums.value / jnp.where(set_already, counts, 1.0), 0.0)

    def usage(self) -> Array:
        """Returns how often each vector was chosen in the last full window of steps, f32[codes]."""
        return self.last.value

    def _remember(self, rows: Array, indices: Array, key: Key | None) -> None:
        """Updates the running averages in the collection `memory`.

        Args:
          rows: the encoded vectors of a batch, f32[R, size].
          indices: the index of the codebook vector that is nearest to each, i32[R].
          key: the key with which the replacements of dead vectors are drawn.
        """
        new = jnp.zeros((self.codes,)).at[indices].add(1.0)
        # The codebook is not initialised when it quantises the first batch, so the choices of that
        # batch are not counted.
        new = jnp.where(jnp.any(self.counts.value > 0), new, 0.0)
        moved = jnp.zeros((self.codes, self.size)).at[indices].add(rows)
        counts = self.decay * self.counts.value + (1.0 - self.decay) * new
        sums = self.decay * self.sums.value + (1.0 - self.decay) * moved

        even = rows.shape[0] / self.codes
        dead = counts <= self.restart * even
        if key is not None:
            rows = jax.random.permutation(key, rows)
        # The n-th dead vector is replaced by the n-th row; if rows are too few, they are reused.
        turn = (jnp.cumsum(dead) - 1) % rows.shape[0]
        self.counts.value = jnp.where(dead, even, counts)
        self.sums.value = jnp.where(dead[:, None], even * jnp.take(rows, turn, axis=0), sums)

        steps, chosen = self.steps.value + 1, self.chosen.value + new
        whole = steps >= self.window
        self.last.value = jnp.where(whole, chosen, self.last.value)
        self.chosen.value = jnp.where(whole, 0.0, chosen)
        self.steps.value = jnp.where(whole, 0, steps)


def nearest(vectors: Array, codebook: Array) -> Array:
    """Returns the index of the nearest row of codebook f32[codes, size] to each vector, i32[...].

    The distance ||v - c||^2 is compared without the term ||v||^2, which does not depend on c, so
    that one matrix product computes all distances.

    Args:
      vectors: f32[..., size].
      codebook: f32[codes, size].
    """
    rows = vectors.reshape((math.prod(vectors.shape[:-1]), vectors.shape[-1]))
    # By default accelerators round both factors to bfloat16, after which another vector could seem
    # to be the nearest.
    product = jnp.matmul(rows, codebook.T, precision="highest")
    distance = jnp.sum(jnp.square(codebook), axis=-1)[None] - 2.0 * product
    return jnp.argmin(distance, axis=-1).astype(jnp.int32).reshape(vectors.shape[:-1])
