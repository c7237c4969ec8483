"""Batches: which examples, and which noise, step t gets, as a pure function of (seed, t)."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax.checks import at_least
from aejax.data.order import stream
from aejax.data.reading import Ahead
from aejax.data.split import Split
from aejax.errors import UserError
from aejax.types import Array, Batch, Key, Source

# Folded into the key of a seed, so that the data's noise is not the model's, whose key it also is.
DATA_STREAM = 0x64617461


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """The batches of a split, without an end.

    Positions t * size to (t + 1) * size - 1 of the concatenated permutations of all epochs are
    batch t: no example is dropped, and a batch may span two epochs. With `seeds` there are S
    streams side by side: member i has the batches of `Batches(split, size, seed + i)`.

        batches = Batches(train, size=128, seed=0)
        batches[7]                    # Batch, leaves [128, ...]
        batches.source(500, 100)      # batches 500 to 599, for aejax.chunked
    """

    split: Split
    size: int  # B
    seed: int = 0
    seeds: int | None = None  # S
    resident_limit: int = 2**30  # bytes; a larger split is stacked chunk by chunk on the host
    sharding: Any = None  # where a resident split is put, by default on the first device
    # (index, count): this process loads its slice of every batch; None: as jax.distributed says.
    process: tuple[int, int] | None = None

    def __post_init__(self):
        if not isinstance(self.split, Split):
            raise UserError(
                f"batches are of one Split and this is a {type(self.split).__name__}: take one of "
                "the three, as in train, validation, test = aejax.data.arrays(x)"
            )
        at_least(1, "batch size", self.size)
        if self.size > len(self.split):
            raise UserError(
                f"batch size {self.size} is larger than {self.split.name}, "
                f"which has {len(self.split)} examples: give a smaller one"
            )
        at_least(0, "data seed", self.seed)
        at_least(1, "seeds", 1 if self.seeds is None else self.seeds)
        if self.process is not None and self.size % self.process[1]:
            raise UserError(
                f"batch size {self.size} does not divide by {self.process[1]} processes"
            )

    def __getitem__(self, t: int) -> Batch:
        """Batch t, or this process' slice of it: leaves [B, ...], or [S, B, ...] with seeds."""
        arrays, key = self.split.rows(self.rows(t, 1)[..., 0, :]), self.key
        if self.seeds is None:
            whole = self.split.prepare(jax.random.fold_in(key, t), arrays)
        else:
            keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(key, t)
            whole = jax.vmap(self.split.prepare)(keys, arrays)
        if self._process[1] == 1:
            return whole
        # Prepared whole, since a row's noise is drawn for its place in the batch.
        axis = 0 if self.seeds is None else 1
        return jax.tree.map(lambda leaf: np.take(np.asarray(leaf), self._slice, axis), whole)

    def rows(self, t: int, count: int) -> np.ndarray:
        """The example numbers of batches t to t + count - 1: i32[count, B] or i32[S, count, B]."""
        at_least(0, "batch", t)
        first, many = t * self.size, count * self.size
        members = [self._stream(self.seed + i, first, many) for i in range(self.seeds or 1)]
        rows = np.stack(members).reshape(-1, count, self.size)
        return rows[0] if self.seeds is None else rows

    def _stream(self, seed: int, start: int, count: int) -> np.ndarray:
        """Example numbers i32[count] of one member, from position `start` of its stream on."""
        return stream(len(self.split), seed, start, count)

    @functools.cached_property
    def key(self) -> Key:
        """The key of the data's noise, Key[] or Key[S]; batch t draws from fold_in(key, t)."""
        # threefry whatever the run's choice: rbg would draw from the first member's key only.
        keys = [
            jax.random.fold_in(jax.random.key(self.seed + i, impl="threefry2x32"), DATA_STREAM)
            for i in range(self.seeds or 1)
        ]
        return keys[0] if self.seeds is None else jnp.stack(keys)

    @functools.cached_property
    def resident(self) -> dict[str, Array] | None:
        """The whole split on the device, leaves [N, ...], or None where it is too large."""
        arrays = self.split.arrays
        held = sum(array.nbytes for array in arrays.values())
        if self.split.reader is not None or held > self.resident_limit or self._process[1] > 1:
            return None
        return jax.device_put({n: np.asarray(a) for n, a in arrays.items()}, self.sharding)

    @functools.cached_property
    def _process(self) -> tuple[int, int]:
        """Read at the first use, since jax.distributed may be started after the data is read."""
        if self.process is not None:
            return self.process
        found = jax.process_index(), jax.process_count()
        dataclasses.replace(self, process=found)  # refuses a batch that does not divide
        return found

    def source(self, t: int, chunk: int, limit: int | None = None) -> Source:
        """The batches of the next steps, ready for `aejax.chunked`.

        Args:
          t: the first step.
          chunk: T, how many batches the source has room for.
          limit: the step to stop before, so that a run's steps need not divide by the chunk.

        Returns:
          Source whose batch i is `self[t + i]` to the bit. Resident where the split is small and
          there is one process: the same arrays each time, rows i32[T, B] or i32[S, T, B]. Else
          stacked: leaves [T, B, ...] or [S, T, B, ...], this process' slice of B.

        Raises:
          UserError: t or chunk is out of range.
        """
        at_least(1, "a chunk of", chunk)
        count = chunk if limit is None else max(0, min(chunk, limit - t))
        if self.resident is None:
            arrays, rows = self._ahead(t, chunk, limit), None
        else:
            arrays, rows = self.resident, jnp.asarray(self.rows(t, chunk))
        return Source(
            arrays=arrays,
            rows=rows,
            key=self.key,
            count=jnp.asarray(count, jnp.int32),
            prepare=self.split.prepare,
        )

    def _stacked(self, t: int, chunk: int) -> dict[str, np.ndarray]:
        """Leaves [T, b, ...] or [S, T, b, ...]: this process' slice of batches t to t + chunk."""
        return self.split.rows(self.rows(t, chunk)[..., self._slice])

    @functools.cached_property
    def _slice(self) -> np.ndarray:
        """Which places of a batch are this process', i64[b]."""
        index, processes = self._process
        share = self.size // processes
        return np.arange(index * share, (index + 1) * share)

    @functools.cached_property
    def _ahead(self) -> Ahead:
        return Ahead(self._stacked)
