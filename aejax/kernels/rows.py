"""Three products that use only k rows of a table for each example, such as k atoms.

    combine   out[b]    = sum_j values[b, j] * table[indices[b, j]]      f32[B, D]
    match     out[b, j] = <vectors[b], table[indices[b, j]]>             f32[B, k]
    spread    out[i]    = sum of values[b, j] * vectors[b] over indices[b, j] = i     f32[m, D]

The gradients of each product are given by the other two. All sums are in float32. Each product has
several implementations (forms), of which `aejax.kernels.table` chooses the one that was fastest in
benchmarks.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from aejax.kernels.table import chosen
from aejax.types import Array

# How many iterations of the loop over j are unrolled; more would only slow down compilation.
_TOGETHER = 32


def combine(values: Array, indices: Array, table: Array) -> Array:
    """Sums values[b, j] * table[indices[b, j]] over j.

    Args:
      values: [B, k].
      indices: indices of rows of the table, i32[B, k], which may repeat.
      table: [m, D].

    Returns:
      f32[B, D].
    """
    size = (*values.shape, *table.shape)
    return chosen("combine", size, COMBINE, values, indices, table)


def match(vectors: Array, indices: Array, table: Array) -> Array:
    """Computes the inner products of each example's vector with k rows of the table.

    Args:
      vectors: [B, D].
      indices: the indices of rows of the table, i32[B, k].
      table: [m, D].

    Returns:
      f32[B, k].
    """
    size = (*indices.shape, *table.shape)
    return chosen("match", size, MATCH, vectors, indices, table)


def spread(values: Array, indices: Array, vectors: Array, rows: int) -> Array:
    """Adds values[b, j] * vectors[b] to row indices[b, j] of an array of zeros.

    Args:
      values: [B, k].
      indices: the indices of rows of the result, i32[B, k], which may repeat.
      vectors: [B, D].
      rows: the number of rows m of the result.

    Returns:
      f32[m, D].
    """
    size = (*values.shape, rows, vectors.shape[1])
    forms = {name: functools.partial(form, rows=rows) for name, form in SPREAD.items()}
    return chosen("spread", size, forms, values, indices, vectors)


def transposed(table: Array) -> Array:
    """Returns a contiguous copy of table.T.

    On CPUs XLA would otherwise fuse the transpose into each operation that uses it, of which an
    optimiser has three. The strided reads of these operations take several times as long as a copy.

    Args:
      table: [m, D].

    Returns:
      [D, m].
    """

    def once(table: Array) -> Array:
        # The copy is made in a branch of a condition, because XLA does not fuse operations across
        # the end of a branch. It is flattened there, because a flat array has only one layout.
        rows, columns = table.shape
        true = jax.lax.optimization_barrier(jnp.ones((), bool))
        flat = jax.lax.cond(
            true,
            lambda t: t.T.reshape(-1),
            lambda t: jnp.zeros((rows * columns,), t.dtype),
            table,
        )
        return flat.reshape(columns, rows)

    return jax.lax.platform_dependent(table, cpu=once, default=jnp.transpose)


def _taken(table: Array, indices: Array) -> Array:
    return table.at[indices].get(mode="promise_in_bounds").astype(jnp.float32)


def _combine_slots(values: Array, indices: Array, table: Array) -> Array:
    """Adds the summands j one after the other, without an array [B, k, D] of all summands."""

    def add(total: Array, slot: Any) -> tuple[Array, None]:
        value, index = slot
        return total + value[:, None].astype(jnp.float32) * _taken(table, index), None

    zeros = jnp.zeros((values.shape[0], table.shape[1]), jnp.float32)
    slots = (values.T, indices.T)
    return jax.lax.scan(add, zeros, slots, unroll=min(_TOGETHER, values.shape[1]) or 1)[0]


def _combine_dense(values: Array, indices: Array, table: Array) -> Array:
    """Multiplies the dense code by the table, which is fast if k is large and m is small."""
    code = _dense(values, indices, table.shape[0])
    return jnp.matmul(code, table.astype(jnp.float32))


def _combine_flat(values: Array, indices: Array, table: Array) -> Array:
    return jnp.einsum(
        "bk,bkd->bd", values.astype(jnp.float32), _taken(table, indices), optimize=False
    )


def _match_examples(vectors: Array, indices: Array, table: Array) -> Array:
    """Computes the products of four examples at a time, so that their rows stay in the cache."""

    def one(example: Any) -> Array:
        vector, index = example
        return jnp.matmul(_taken(table, index), vector.astype(jnp.float32))

    return jax.lax.map(one, (vectors, indices), batch_size=4)


def _match_slots(vectors: Array, indices: Array, table: Array) -> Array:
    def one(index: Array) -> Array:
        return jnp.sum(vectors.astype(jnp.float32) * _taken(table, index), axis=-1)

    return jax.lax.map(one, indices.T).T


def _match_dense(vectors: Array, indices: Array, table: Array) -> Array:
    """Multiplies the vectors by the whole table, and keeps k products of each example."""
    product = jnp.matmul(vectors.astype(jnp.float32), table.astype(jnp.float32).T)
    return jnp.take_along_axis(product, indices, axis=-1)


def _match_flat(vectors: Array, indices: Array, table: Array) -> Array:
    return jnp.einsum(
        "bd,bkd->bk", vectors.astype(jnp.float32), _taken(table, indices), optimize=False
    )


def _spread_examples(values: Array, indices: Array, vectors: Array, rows: int) -> Array:
    """Adds values[b, k] * vectors[b] to row indices[b, k] of the result, for a few b at a time.

    The vectors and rows of few examples stay in the processor's cache.
    """
    together = math.gcd(values.shape[0], 4)

    def add(total: Array, examples: Any) -> tuple[Array, None]:
        value, index, vector = examples
        scaled = value[:, :, None].astype(jnp.float32) * vector[:, None].astype(jnp.float32)
        flat = scaled.reshape(-1, vector.shape[-1])
        return total.at[index.reshape(-1)].add(flat, mode="promise_in_bounds"), None

    zeros = jnp.zeros((rows, vectors.shape[1]), jnp.float32)
    parts = (a.reshape(-1, together, a.shape[1]) for a in (values, indices, vectors))
    return jax.lax.scan(add, zeros, tuple(parts))[0]


def _spread_slots(values: Array, indices: Array, vectors: Array, rows: int) -> Array:
    def add(total: Array, slot: Any) -> tuple[Array, None]:
        value, index = slot
        scaled = value[:, None].astype(jnp.float32) * vectors.astype(jnp.float32)
        return total.at[index].add(scaled, mode="promise_in_bounds"), None

    zeros = jnp.zeros((rows, vectors.shape[1]), jnp.float32)
    return jax.lax.scan(add, zeros, (values.T, indices.T))[0]


def _spread_dense(values: Array, indices: Array, vectors: Array, rows: int) -> Array:
    code = _dense(values, indices, rows)
    return jnp.matmul(code.T, vectors.astype(jnp.float32))


def _spread_flat(values: Array, indices: Array, vectors: Array, rows: int) -> Array:
    scaled = values[:, :, None].astype(jnp.float32) * vectors[:, None].astype(jnp.float32)
    zeros = jnp.zeros((rows, vectors.shape[1]), jnp.float32)
    return zeros.at[indices].add(scaled, mode="promise_in_bounds")


def _dense(values: Array, indices: Array, rows: int) -> Array:
    """Puts values [B, k] at their indices into zeros f32[B, m], where m = rows."""
    zeros = jnp.zeros((values.shape[0], rows), jnp.float32)
    example = jnp.broadcast_to(jnp.arange(values.shape[0])[:, None], indices.shape)
    return zeros.at[example, indices].add(values.astype(jnp.float32), mode="promise_in_bounds")


# The implementations of each product. The first one, a single operation, runs on backends without
# benchmark results.
COMBINE = {"flat": _combine_flat, "slots": _combine_slots, "dense": _combine_dense}
MATCH = {
    "flat": _match_flat,
    "slots": _match_slots,
    "examples": _match_examples,
    "dense": _match_dense,
}
SPREAD = {
    "flat": _spread_flat,
    "slots": _spread_slots,
    "examples": _spread_examples,
    "dense": _spread_dense,
}
