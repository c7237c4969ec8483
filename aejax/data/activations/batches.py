"""Batches of a store's tokens, shuffled in two levels because a store may exceed memory."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from aejax.checks import at_least
from aejax.data.activations.order import pool_tokens, stream
from aejax.data.batches import Batches


@dataclasses.dataclass(frozen=True, eq=False)
class TokenBatches(Batches):
    """The endless sequence of batches of a split of an activation store.

    It differs from `aejax.data.Batches` only in the order of the tokens: blocks of neighbouring
    tokens are shuffled first, and then the tokens within each group of blocks, called a pool; see
    `aejax.data.activations.order`. A split of up to `resident_limit` bytes is kept on the device.
    From a larger one, the batches of the next training steps are read and sent to the device while
    the model trains on earlier ones, and memory holds two pools. The order is the same in both
    cases: batch t is a function of (seed, t) and `pool`.

    Attributes:
      pool: the number of tokens in a pool, which is rounded to whole blocks (`pool_tokens`).
    """

    pool: int = 65_536

    def __post_init__(self):
        Batches.__post_init__(self)
        at_least(1, "the pool", self.pool)
        for array in self.split.arrays.values():
            if hasattr(array, "reserve"):  # read from a disk, or computed by a model
                array.reserve(2 * self.pool_tokens * (self.seeds or 1))

    @property
    def pool_tokens(self) -> int:
        """The number of tokens in a pool: `pool` in whole blocks, but at most all tokens."""
        return pool_tokens(len(self.split), self.pool)

    def provenance(self) -> dict[str, Any]:
        """Returns the description of the split and the size of its shuffling pools.

        The values are JSON values, for environment.json.
        """
        share = self.pool_tokens / len(self.split)
        return {**self.split.provenance(), "pool_tokens": self.pool_tokens, "pool_share": share}

    def _stream(self, seed: int, start: int, count: int) -> np.ndarray:
        """Returns the indices i64[count] of tokens in the order that one seed determines.

        Args:
          seed: the seed of the order.
          start: the first position in the order, counted over all epochs.
          count: the number of positions.
        """
        return stream(len(self.split), seed, start, count, self.pool)

    def _stacked(self, t: int, chunk: int) -> Any:
        """Reads the arrays of batches t to t + T - 1, leaves [T, b, d], where T = chunk.

        b is the number of tokens of a batch that this process loads. If there is only one device,
        the arrays are already being sent to it.
        """
        arrays = Batches._stacked(self, t, chunk)
        return jax.device_put(arrays) if jax.device_count() == 1 else arrays
