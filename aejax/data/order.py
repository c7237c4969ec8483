"""Which example comes when: seeded permutations, one per epoch, read as one endless stream."""

from __future__ import annotations

import functools

import numpy as np

from aejax.data.words import shuffled


@functools.lru_cache(maxsize=32)
def permutation(examples: int, seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch.

    Args:
      examples: N.
      seed: 0 or more.
      epoch: counted from 0.

    Returns:
      i32[N], each number from 0 to N - 1 once; not writable.
    """
    order = shuffled(seed, (epoch,), examples).astype(np.int32)
    order.flags.writeable = False
    return order


def stream(examples: int, seed: int, start: int, count: int) -> np.ndarray:
    """A piece of the endless stream: epoch after epoch, no example dropped.

    Args:
      examples: N.
      seed: 0 or more.
      start: the first position, 0 or more; position p lies in epoch p // N.
      count: how many positions.

    Returns:
      i32[count], example numbers.
    """
    first, last = start // examples, (start + count - 1) // examples
    pieces = [permutation(examples, seed, epoch) for epoch in range(first, last + 1)]
    offset = start - first * examples
    return np.concatenate(pieces)[offset : offset + count]
