"""Random 64-bit words that are the same on every machine and with every version of numpy.

numpy guarantees that the raw output of a bit generator is the same in all versions, but not its
shuffles and distributions; aejax therefore computes those itself, here and in `synthetic.random`.
"""

from __future__ import annotations

import numpy as np


def random_words(seed: int, stream: tuple[int, ...], count: int) -> np.ndarray:
    """Returns raw 64-bit words u64[count] of the Philox generator.

    Args:
      seed: the seed, 0 or more.
      stream: integers that identify one of the seed's streams, which are independent of each other.
      count: the number of words.
    """
    return np.random.Philox(np.random.SeedSequence(seed, spawn_key=stream)).random_raw(count)


def shuffled(seed: int, stream: tuple[int, ...], count: int) -> np.ndarray:
    """Returns 0 to count - 1 in random order, i64[count]; `random_words` explains the arguments."""
    return np.argsort(random_words(seed, stream, count), kind="stable")
