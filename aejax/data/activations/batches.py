"""Batches of a store's tokens, shuffled in two levels because a store is larger than memory."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from aejax.data.activations.order import pool_tokens, stream
from aejax.data.batches import Batches
from aejax.errors import UserError
from aejax.types import Array


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
        if self.pool < 1:
            raise UserError(f"a pool of {self.pool} tokens: give 1 or more")
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

    def rows(self, t: int, count: int) -> np.ndarray:
        """Token numbers of batches t to t + count - 1: i64[count, B] or i64[S, count, B]."""
        if t < 0:
            raise UserError(f"batch {t}: steps count from 0")
        members = [
            stream(len(self.split), self.seed + i, t * self.size, count * self.size, self.pool)
            for i in range(self.seeds or 1)
        ]
        rows = np.stack(members).reshape(-1, count, self.size)
        return rows[0] if self.seeds is None else rows

    @functools.cached_property
    def resident(self) -> dict[str, Array] | None:
        """All tokens on the device, leaves [N, d], or None where they are too many."""
        arrays = self.split.arrays
        held = sum(array.nbytes for array in arrays.values())
        if held > self.resident_limit or self._process[1] > 1:
            return None
        return jax.device_put({n: np.asarray(a) for n, a in arrays.items()}, self.sharding)

    def _stacked(self, t: int, chunk: int) -> Any:
        """Leaves [T, b, d], read and, where there is but one device, sent in the background."""
        arrays = Batches._stacked(self, t, chunk)
        return jax.device_put(arrays) if jax.device_count() == 1 else arrays
