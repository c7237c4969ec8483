"""The largest values of a whole batch, exactly: no sort, and no limit on what one row may hold."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aejax.kernels.mask import counts
from aejax.kernels.members import any_member
from aejax.types import Array

MEMBERS = 8  # of a group


class Found(NamedTuple):
    """Where the largest values of a batch are, row after row."""

    row: Array  # i32[n], never falling
    column: Array  # i32[n]
    count: Array  # i32[], how many there are: the first ones; the others are in bounds, no more


def largest_of_batch(
    product: Array, bias: Array, norms: Array | None, count: int | Array, room: int
) -> Found:
    """The `count` largest of (product + bias) * norms over all rows, of those above zero.

    Columns are grouped, and groups again, while there are many more groups than values wanted. Each
    of the `count` largest values lies in one of the `count` groups with the largest maxima: so from
    the coarsest groups on, only the members of those found are looked at. Ties go to any.

    Args:
      product: f32[B, m].
      bias: f32[m].
      norms: f32[m], positive, or None for ones.
      count: how many, 1 or more; more than `room` are not given.
      room: n, the size of what is returned.

    Returns:
      Found, without a gradient.
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
    """Which are the `count` largest, of those above zero; ties go to the first ones.

    NaN is chosen first, so that what has diverged is seen in what is made of the chosen.

    Args:
      values: f32[n, c], not negative.
      count: from 1.

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

    # Counting along them takes longer than all else here, and ties are rare.
    many = any_member(jnp.sum(tied) > room)
    return above | (tied & (place <= jax.lax.cond(many, counted, lambda: last)))


def kth_largest(values: Array, k: int | Array) -> Array:
    """The k-th largest of all values, by bisection on their bits: no sort, one count a bit, f32[].

    Args:
      values: f32, not negative (the bits of such floats order as they do).
      k: from 1; 0 is found where it is more than there are values.
    """
    flat = _padded(values.astype(jnp.float32), 256)
    bits = jax.lax.bitcast_convert_type(flat.reshape(-1, 256), jnp.int32)

    def add_bit(i: Array, found: Array) -> Array:
        tried = found | (jnp.int32(1) << (30 - i))
        return jnp.where(jnp.sum(counts(bits, tried)) >= k, tried, found)

    found = jax.lax.fori_loop(0, 31, add_bit, jnp.zeros((), jnp.int32))
    return jax.lax.bitcast_convert_type(found, jnp.float32)


def positions(mask: Array, size: int) -> tuple[Array, Array]:
    """Where a mask is true, in order, in a tenth of the time of `jnp.flatnonzero` on CPUs.

    Each 32 of its bits make a word; the words are found by their running count, and the bits in
    them by halving.

    Args:
      mask: bool, of any shape; flat indices are meant.
      size: of what is returned; positions beyond it are left out.

    Returns:
      i32[size], of which those beyond their number are in bounds and no more, and their number.
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
    """Where the rank-th of a word's bits that are set is, counted from 0 and the lowest, i32[n]."""
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
    """Flat, with zeros up to a multiple."""
    return jnp.pad(values.ravel(), (0, -values.size % multiple))
