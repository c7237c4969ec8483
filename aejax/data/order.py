"""The order of the examples in training: a seeded permutation for each epoch, without an end."""

from __future__ import annotations

import functools

import numpy as np

from aejax.data.words import shuffled


@functools.lru_cache(maxsize=32)
def permutation(examples: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the order of the examples in one epoch.

    Args:
      examples: the number of examples, N.
      seed: the seed, 0 or more.
      epoch: the index of the epoch, from 0.

    Returns:
      A permutation of 0 to N - 1, i32[N], read-only.
    """
    order = shuffled(seed, (epoch,), examples).astype(np.int32)
    order.flags.writeable = False
    return order


def stream(examples: int, seed: int, start: int, count: int) -> np.ndarray:
    """Returns consecutive entries of the endless sequence of example indices, epoch after epoch.

    Args:
      examples: the number of examples, N.
      seed: the seed, 0 or more.
      start: the first position, 0 or more; position p belongs to epoch p // N.
      count: the number of positions.

    Returns:
      Indices of examples, i32[count].
    """
    first, last = start // examples, (start + count - 1) // examples
    pieces = [permutation(examples, seed, epoch) for epoch in range(first, last + 1)]
    offset = start - first * examples
    return np.concatenate(pieces)[offset : offset + count]
