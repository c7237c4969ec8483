"""What a sparse bottleneck gives: rows of a few latents, or a dense code that is mostly zero."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aejax.types import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """A sparse z with a fixed number of slots: `values` at `indices`, zero elsewhere.

    Where one example may need more slots than there are (BatchTopK), `spill` has what did not fit.
    """

    values: Array  # f32[B, k]
    indices: Array  # i32[B, k], each at most once an example
    latents: int = dataclasses.field(metadata={"static": True})  # m
    # With `map`, `between` and `used`, as BatchTopK's Remainder has them.
    spill: Any = None

    def dense(self) -> Array:
        """f32[B, m]."""
        rows = jnp.arange(self.values.shape[0])[:, None]
        zeros = jnp.zeros((self.values.shape[0], self.latents), self.values.dtype)
        kept = zeros.at[jnp.broadcast_to(rows, self.indices.shape), self.indices].add(self.values)
        return kept if self.spill is None else kept + self.spill.map(lambda spill: spill, kept)

    def between(self, low: int, high: int) -> Rows:
        """The same rows with all latents but low <= i < high silent."""
        inside = (self.indices >= low) & (self.indices < high)
        spill = None if self.spill is None else self.spill.between(low, high)
        values = jnp.where(inside, self.values, 0.0)
        return dataclasses.replace(self, values=values, spill=spill)


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
        return self.z.dense() if isinstance(self.z, Rows) else self.z

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
        total = jnp.sum(values, axis=-1)

        def sums(spill: Array) -> Array:
            spill = jnp.abs(spill)
            return jnp.sum(spill if weights is None else spill * weights[None], axis=-1)

        return total if self.z.spill is None else total + self.z.spill.map(sums, total)

    def used(self) -> Array:
        """Latents that some example uses, bool[m]."""
        if not isinstance(self.z, Rows):
            return jnp.any(self.z != 0, axis=0)
        none = jnp.zeros((self.z.latents,), bool)
        used = none.at[self.z.indices.ravel()].max(self.z.values.ravel() != 0)
        return used if self.z.spill is None else used | self.z.spill.used
