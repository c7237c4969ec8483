"""Representations of a sparse code: the values of a few active latents, or a dense array."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aejax.events import dense
from aejax.kernels.decode import decode_rows
from aejax.types import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """A sparse z: the `values` of the latents with the given `indices`; all others are zero.

    Usually row b holds the k values of example b. In BatchTopK, where examples have different
    numbers of values, an example may have several rows; there are C rows in all, in the order of
    the examples.
    """

    values: Array  # f32[B, k] or f32[C, k]
    # i32[B, k] or i32[C, k]; the nonzero values of an example have different indices.
    indices: Array
    latents: int = dataclasses.field(metadata={"static": True})  # m
    # i32[C], the example of each row, in ascending order; None: row b belongs to example b.
    example: Array | None = None
    # The number of examples B, which must be set if `example` is.
    size: int | None = dataclasses.field(default=None, metadata={"static": True})

    def per_example(self, parts: Array) -> Array:
        """Sums values of rows, parts f32[C, ...], over the rows of each example, f32[B, ...]."""
        if self.example is None:
            return parts
        return jax.ops.segment_sum(parts, self.example, self.size, indices_are_sorted=True)

    def dense(self) -> Array:
        """Returns z as a dense array, f32[B, m]."""
        count = self.values.shape[0]
        size, example = count if self.size is None else self.size, self.example
        rows = (jnp.arange(count) if example is None else example)[:, None]
        zeros = jnp.zeros((size, self.latents), self.values.dtype)
        return zeros.at[jnp.broadcast_to(rows, self.indices.shape), self.indices].add(self.values)

    def combine(self, atoms: Array) -> Array:
        """Computes dense() @ atoms, f32[B, D], for atoms f32[m, D], from the stored values only."""
        output = decode_rows(self.values.astype(atoms.dtype), self.indices, atoms)
        return self.per_example(output.astype(jnp.float32))

    def between(self, low: int, high: int) -> Rows:
        """Returns the rows with all values set to zero except those of latents low <= i < high."""
        inside = (self.indices >= low) & (self.indices < high)
        return dataclasses.replace(self, values=jnp.where(inside, self.values, 0.0))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Subset:
    """A z in which only c of the m latents may be nonzero, the same ones for all examples."""

    values: Array  # f32[B, c]
    columns: Array  # i32[c], the indices of these latents, without repetition
    latents: int = dataclasses.field(metadata={"static": True})  # m

    def dense(self) -> Array:
        """Returns z as a dense array, f32[B, m]."""
        zeros = jnp.zeros((self.values.shape[0], self.latents), self.values.dtype)
        return zeros.at[:, self.columns].set(self.values)

    def combine(self, atoms: Array) -> Array:
        """Computes dense() @ atoms, f32[B, D], for atoms f32[m, D], from the c latents only."""
        own = jnp.take(atoms, self.columns, axis=0)
        values = self.values.astype(atoms.dtype)
        return jnp.matmul(values, own, preferred_element_type=jnp.float32)


class SparseCode(NamedTuple):
    """The code of a sparse autoencoder: many latents, few of which are nonzero for one example."""

    z: Array | Rows  # a dense array f32[B, m], or only the values that may be nonzero
    l0: Array  # f32[B], the number of active latents; its gradient reaches JumpReLU's thresholds
    # f32[B, m], the pre-activations of JumpReLU or of the gate of Gated, which some loss terms
    # need; None for other bottlenecks.
    pre: Array | None = None
    # f32[B, m], the projection x W + b of all latents, where a code of the dense form computed it;
    # AuxK reads it again.
    projected: Array | None = None

    @property
    def latent(self) -> Array | Rows:
        """Returns z; sparse autoencoders have no prior that would evaluate its density."""
        return self.z

    def dense(self) -> Array:
        """Returns z as a dense array f32[B, m]."""
        return dense(self.z)

    def uses(self, valid: Array) -> Array:
        """Returns the number of valid examples in which each latent is active, i32[m].

        Args:
          valid: whether each example is valid, bool[B]; invalid ones are padding.
        """
        if not isinstance(self.z, Rows):
            return jnp.sum((self.z != 0) & valid[:, None], axis=0, dtype=jnp.int32)
        rows = valid if self.z.example is None else jnp.take(valid, self.z.example)
        active = ((self.z.values != 0) & rows[:, None]).astype(jnp.int32)
        return jnp.zeros((self.z.latents,), jnp.int32).at[self.z.indices].add(active)

    def magnitude(self, weights: Array | None = None) -> Array:
        """Computes the L1 norm of each example's z, f32[B].

        Args:
          weights: the weight of each latent, f32[m], such as its atom's norm; None: all 1.
        """
        if not isinstance(self.z, Rows):
            values = jnp.abs(self.z)
            return jnp.sum(values if weights is None else values * weights[None], axis=-1)
        values = jnp.abs(self.z.values)
        if weights is not None:
            values = values * jnp.take(weights, self.z.indices)
        return self.z.per_example(jnp.sum(values, axis=-1))

    def used(self, above: float = 0.0) -> Array:
        """Returns for each latent whether |z| > `above` for any example, bool[m]."""
        if not isinstance(self.z, Rows):
            return jnp.any(jnp.abs(self.z) > above, axis=0)
        none = jnp.zeros((self.z.latents,), bool)
        return none.at[self.z.indices.ravel()].max(jnp.abs(self.z.values.ravel()) > above)
