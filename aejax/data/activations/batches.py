"""Batches of a store's tokens, shuffled in two levels because a store is larger than memory."""

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
    """The batches of a split of a store: `aejax.data.Batches`, shuffled in two levels.

    Stores up to `resident_limit` live on the device. Of a larger one each chunk of batches is read
    and sent to the device while the one before it is trained on; memory holds two pools. The order
    is the same either way: batch t is a function of (seed, t) and of `pool`.

    Attributes:
      pool: tokens that are shuffled together; `pool_tokens` is what that comes to.
    """

    pool: int = 65_536

    def __post_init__(self):
        Batches.__post_init__(self)
        at_least(1, "a pool of", self.pool)
        for array in self.split.arrays.values():
            if hasattr(array, "reserve"):  # read from a disk, or computed by a model
                array.reserve(2 * self.pool_tokens * (self.seeds or 1))

    @property
    def pool_tokens(self) -> int:
        """How many tokens are truly shuffled together: whole blocks, at most all."""
        return pool_tokens(len(self.split), self.pool)

    def provenance(self) -> dict[str, Any]:
        """What environment.json says of the data and its order, as plain values."""
        share = self.pool_tokens / len(self.split)
        return {**self.split.provenance(), "pool_tokens": self.pool_tokens, "pool_share": share}

    def _stream(self, seed: int, start: int, count: int) -> np.ndarray:
        """Token numbers i64[count] of one member, from position `start` of its stream on."""
        return stream(len(self.split), seed, start, count, self.pool)

    def _stacked(self, t: int, chunk: int) -> Any:
        """Leaves [T, b, d], read and, where there is but one device, sent in the background."""
        arrays = Batches._stacked(self, t, chunk)
        return jax.device_put(arrays) if jax.device_count() == 1 else arrays
