"""What a sparse bottleneck gives: rows of a few latents, or a dense code that is mostly zero."""

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
    """A sparse z with a fixed number of slots: `values` at `indices`, zero elsewhere.

    A row of k slots is an example's, or, where examples differ in how many they need (BatchTopK),
    one of the rows of an example: C of them in all, the examples' in turn.
    """

    values: Array  # f32[B, k] or f32[C, k]
    indices: Array  # i32[B, k] or i32[C, k], each at most once an example where its value is not 0
    latents: int = dataclasses.field(metadata={"static": True})  # m
    example: Array | None = None  # i32[C], whose rows they are, never falling; None: one each
    size: int | None = dataclasses.field(default=None, metadata={"static": True})  # B, with example

    def per_example(self, parts: Array) -> Array:
        """The sum over each example's rows of f32[C, ...], f32[B, ...]; as they are if one each."""
        if self.example is None:
            return parts
        return jax.ops.segment_sum(parts, self.example, self.size, indices_are_sorted=True)

    def dense(self) -> Array:
        """f32[B, m]."""
        count = self.values.shape[0]
        size, example = count if self.size is None else self.size, self.example
        rows = (jnp.arange(count) if example is None else example)[:, None]
        zeros = jnp.zeros((size, self.latents), self.values.dtype)
        return zeros.at[jnp.broadcast_to(rows, self.indices.shape), self.indices].add(self.values)

    def combine(self, atoms: Array) -> Array:
        """dense() @ atoms[m, D] at the cost of the slots alone, f32[B, D]."""
        output = decode_rows(self.values.astype(atoms.dtype), self.indices, atoms)
        return self.per_example(output.astype(jnp.float32))

    def between(self, low: int, high: int) -> Rows:
        """The same rows with all latents but low <= i < high silent."""
        inside = (self.indices >= low) & (self.indices < high)
        return dataclasses.replace(self, values=jnp.where(inside, self.values, 0.0))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Subset:
    """A z that is zero but for some latents, the same ones for all examples."""

    values: Array  # f32[B, c]
    columns: Array  # i32[c], the latents, each once
    latents: int = dataclasses.field(metadata={"static": True})  # m

    def dense(self) -> Array:
        """f32[B, m]."""
        zeros = jnp.zeros((self.values.shape[0], self.latents), self.values.dtype)
        return zeros.at[:, self.columns].set(self.values)

    def combine(self, atoms: Array) -> Array:
        """dense() @ atoms[m, D] at the cost of the c latents alone, f32[B, D]."""
        own = jnp.take(atoms, self.columns, axis=0)
        values = self.values.astype(atoms.dtype)
        return jnp.matmul(values, own, preferred_element_type=jnp.float32)


class SparseCode(NamedTuple):
    """An overcomplete code of which little is active."""

    z: Array | Rows  # f32[B, m], or rows with a fixed number of slots
    l0: Array  # f32[B], active latents of each example; carries a threshold's gradient
    # f32[B, m], what the selection saw, where terms need it: a gate's or a jump's pre-activations
    pre: Array | None = None

    @property
    def latent(self) -> Array | Rows:
        """What the decoder sees; no prior gives it a probability."""
        return self.z

    def dense(self) -> Array:
        """z as f32[B, m], whatever its form."""
        return dense(self.z)

    def uses(self, valid: Array) -> Array:
        """How many of the examples that count use each latent, i32[m].

        Args:
          valid: bool[B], the examples that count.
        """
        if not isinstance(self.z, Rows):
            return jnp.sum((self.z != 0) & valid[:, None], axis=0, dtype=jnp.int32)
        rows = valid if self.z.example is None else jnp.take(valid, self.z.example)
        active = ((self.z.values != 0) & rows[:, None]).astype(jnp.int32)
        return jnp.zeros((self.z.latents,), jnp.int32).at[self.z.indices].add(active)

    def magnitude(self, weights: Array | None = None) -> Array:
        """The L1 norm of each example's z, f32[B].

        Args:
          weights: f32[m] of the latents, such as their atoms' norms; None weighs all as 1.
        """
        if not isinstance(self.z, Rows):
            values = jnp.abs(self.z)
            return jnp.sum(values if weights is None else values * weights[None], axis=-1)
        values = jnp.abs(self.z.values)
        if weights is not None:
            values = values * jnp.take(weights, self.z.indices)
        return self.z.per_example(jnp.sum(values, axis=-1))

    def used(self, above: float = 0.0) -> Array:
        """Latents of which some example uses more than `above`, in absolute value, bool[m]."""
        if not isinstance(self.z, Rows):
            return jnp.any(jnp.abs(self.z) > above, axis=0)
        none = jnp.zeros((self.z.latents,), bool)
        return none.at[self.z.indices.ravel()].max(jnp.abs(self.z.values.ravel()) > above)
