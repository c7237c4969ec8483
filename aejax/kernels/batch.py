"""Exact selection of the largest values of a whole batch, without a sort.

A row may contain any number of the selected values.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aejax.kernels.mask import counts
from aejax.kernels.members import any_member
from aejax.types import Array

MEMBERS = 8  # the number of values in a group


class Found(NamedTuple):
    """The places of the largest values in a matrix f32[B, m], ordered by example."""

    row: Array  # i32[n], the examples, ascending
    column: Array  # i32[n], the latents
    count: Array  # i32[], the number of values found; later entries are arbitrary but in bounds


def largest_of_batch(
    product: Array, bias: Array, norms: Array | None, count: int | Array, room: int
) -> Found:
    """Finds the `count` largest values above zero of (product + bias) * norms over all rows.

    The columns of a row are divided into groups of MEMBERS, and these groups into larger groups of
    MEMBERS groups, as long as there are at least twice as many groups as `room`. Each of the
    `count` largest values is in one of the `count` groups with the largest maxima. The search
    therefore starts with the largest groups, and then examines only the content of the groups
    found. Ties are broken arbitrarily.

    Args:
      product: f32[B, m].
      bias: f32[m].
      norms: f32[m], positive; None: all 1.
      count: the number of values to find, 1 or more; at most `room` are returned.
      room: n, the size of the returned arrays.

    Returns:
      The positions of the values; they have no gradient.
    """
    product, bias, norms = jax.lax.stop_gradient((product, bias, norms))
    score = product + bias[None]
    levels = [jax.nn.relu(score if norms is None else score * norms[None])]
    size, columns = product.shape
    while columns % MEMBERS == 0 and size * columns // MEMBERS >= 2 * room:
        columns //= MEMBERS
        parts = (levels[-1][:, j * columns : (j + 1) * columns] for j in range(MEMBERS))
        levels.append(functools.reduce(jnp.maximum, parts))
    count = jnp.minimum(count, min(room, product.size))
    place, found = positions(chosen(levels[-1], count), room)
    row, column = jnp.divmod(place, columns)
    for level in levels[-2::-1]:
        groups = level.shape[1] // MEMBERS
        members = column[:, None] + groups * jnp.arange(MEMBERS, dtype=jnp.int32)[None]
        held = level.at[row[:, None], members].get(mode="promise_in_bounds")
        held = jnp.where(jnp.arange(room)[:, None] < found, held, 0.0)
        place, found = positions(chosen(held, count), room)
        row, column = jnp.take(row, place // MEMBERS), jnp.take(members.ravel(), place)
    return Found(row, column, found)


def chosen(values: Array, count: Array | int) -> Array:
    """Returns a mask of the `count` largest values above zero; of tied values, the first win.

    NaN is chosen first, so that it stays visible in the result if training diverges.

    Args:
      values: f32[n, c], not negative.
      count: the number of values to choose, 1 or more.

    Returns:
      bool[n, c].
    """
    threshold = kth_largest(values, count)
    above = (values > threshold) | jnp.isnan(values)
    tied = (values == threshold) & (values > 0)
    room = count - jnp.sum(above)
    place = jnp.arange(values.size, dtype=jnp.int32).reshape(values.shape)
    last = jnp.int32(values.size)

    def counted() -> Array:
        return jnp.searchsorted(jnp.cumsum(tied.ravel()), room).astype(jnp.int32)

    # Ties are rare, and counting them in order would take longer than all other operations here.
    many = any_member(jnp.sum(tied) > room)
    return above | (tied & (place <= jax.lax.cond(many, counted, lambda: last)))


def kth_largest(values: Array, k: int | Array) -> Array:
    """Returns the k-th largest of all values, f32[], found by bisection without a sort.

    The bisection is over the bits of the result, because nonnegative floats have the same order as
    the integers with the same bits.

    Args:
      values: f32 of any shape, not negative.
      k: 1 or more; the result is 0 if there are fewer than k values.
    """
    flat = _padded(values.astype(jnp.float32), 256)
    bits = jax.lax.bitcast_convert_type(flat.reshape(-1, 256), jnp.int32)

    def add_bit(i: Array, found: Array) -> Array:
        tried = found | (jnp.int32(1) << (30 - i))
        return jnp.where(jnp.sum(counts(bits, tried)) >= k, tried, found)

    found = jax.lax.fori_loop(0, 31, add_bit, jnp.zeros((), jnp.int32))
    return jax.lax.bitcast_convert_type(found, jnp.float32)


def positions(mask: Array, size: int) -> tuple[Array, Array]:
    """Returns the flat indices where a mask is true, in ascending order.

    On CPUs this takes a tenth of the time of `jnp.flatnonzero`. Each 32 elements are packed into a
    word. The word of the i-th set bit is found from the cumulative number of set bits, and its
    position in the word by bisection.

    Args:
      mask: bool, of any shape.
      size: the largest number of indices to return; further ones are left out.

    Returns:
      The indices i32[size] and their count i32[]. Indices beyond the count are arbitrary but in
      bounds.
    """
    bits = _padded(mask, 32).reshape(-1, 32).astype(jnp.uint32)
    words = jnp.sum(bits << jnp.arange(32, dtype=jnp.uint32)[None], axis=1, dtype=jnp.uint32)
    held = jax.lax.population_count(words).astype(jnp.int32)
    ends = jnp.cumsum(held)
    wanted = jnp.arange(size, dtype=jnp.int32)
    place = jnp.searchsorted(ends, wanted, side="right").astype(jnp.int32)
    place = jnp.minimum(place, words.size - 1)
    rank = wanted - jnp.take(ends - held, place)
    position = 32 * place + _bit(jnp.take(words, place), rank)
    return jnp.minimum(position, mask.size - 1), jnp.minimum(ends[-1], size)


def _bit(words: Array, rank: Array) -> Array:
    """Returns the position of a set bit in each of n words, i32[n]; the lowest bit has position 0.

    Args:
      words: the words, u32[n].
      rank: i32[n], which of the set bits of each word is wanted, from 0 for the lowest.
    """
    place = jnp.zeros_like(rank)
    for half in (16, 8, 4, 2, 1):
        low = words & jnp.uint32((1 << half) - 1)
        below = jax.lax.population_count(low).astype(jnp.int32)
        high = rank >= below
        words = jnp.where(high, words >> half, low)
        rank = jnp.where(high, rank - below, rank)
        place = place + jnp.where(high, half, 0)
    return place


def _padded(values: Array, multiple: int) -> Array:
    """Flattens an array and appends zeros until its size is a multiple of `multiple`."""
    return jnp.pad(values.ravel(), (0, -values.size % multiple))
