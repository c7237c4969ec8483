"""Masks of the k largest values of each row, without a sort and without indices."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from aejax.types import Array


def mask_of_largest(values: Array, k: int) -> Array:
    """Returns a mask of the k largest values of each row; the first of tied values are chosen.

    The k-th largest value is found by bisection over its bits; each bit needs one pass over the
    row. For k of a few hundred this takes a third of the time of a partial sort.

    Args:
      values: f32[B, c], without NaN.
      k: the number of values, 1 or more; if it is c or more, all are chosen.

    Returns:
      bool[B, c].
    """
    if k >= values.shape[1]:
        return jnp.ones(values.shape, bool)
    order = ordered(values)
    smallest = jnp.full((values.shape[0],), jnp.iinfo(jnp.int32).min)

    def add_bit(i: Array, found: Array) -> Array:
        # The first addition, of the sign bit, overflows to zero.
        tried = found + (jnp.int32(1) << (31 - i))
        return jnp.where(counts(order, tried[:, None]) >= k, tried, found)

    threshold = jax.lax.fori_loop(0, 32, add_bit, smallest)[:, None]
    kept = order >= threshold

    def first_ones() -> Array:
        above, tied = order > threshold, order == threshold
        room = k - jnp.sum(above, axis=-1, keepdims=True)
        return above | (tied & (jnp.cumsum(tied, axis=-1) <= room))

    ties = jnp.any(jnp.sum(kept, axis=-1) > k)
    return jax.lax.cond(ties, first_ones, lambda: kept)


def counts(values: Array, least: Array) -> Array:
    """Returns the number of values in each row that are at least `least`, i32[n].

    Groups of columns are first summed in int8, which on CPUs takes a sixth of the time of a sum in
    int32.

    Args:
      values: i32[n, c].
      least: i32[] or i32[n, 1].
    """
    width, rest = divmod(values.shape[1], _SLICES)
    if rest:
        return jnp.sum(values >= least, axis=-1, dtype=jnp.int32)
    slices = (values[:, i * width : (i + 1) * width] >= least for i in range(_SLICES))
    total = functools.reduce(jnp.add, (one.astype(jnp.int8) for one in slices))
    return jnp.sum(total, axis=-1, dtype=jnp.int32)


_SLICES = 32  # at most 127, so that an int8 can hold the sum of this many ones


def ordered(values: Array) -> Array:
    """Returns integers i32 of the same shape that have the same order as the floats."""
    bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.int32)
    return jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)


def floats(order: Array) -> Array:
    """Returns the floats f32 that `ordered` maps to these integers i32."""
    bits = jnp.where(order < 0, order ^ jnp.int32(0x7FFFFFFF), order)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
