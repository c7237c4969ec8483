"""Random words that are the same on every machine and for every version of numpy.

numpy promises the raw stream of a bit generator for all versions, but not what shuffles and
distributions make of it: those are made here and in `synthetic.random`.
"""

from __future__ import annotations

import numpy as np


def random_words(seed: int, stream: tuple[int, ...], count: int) -> np.ndarray:
    """Raw words u64[count] of Philox.

    Args:
      seed: 0 or more.
      stream: which of a seed's streams; different ones are independent.
      count: how many words.
    """
    return np.random.Philox(np.random.SeedSequence(seed, spawn_key=stream)).random_raw(count)


def shuffled(seed: int, stream: tuple[int, ...], count: int) -> np.ndarray:
    """The numbers from 0 to count - 1 in random order, i64[count]; seed and stream as above."""
    return np.argsort(random_words(seed, stream, count), kind="stable")
