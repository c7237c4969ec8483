"""Shuffled batches: batch t, including the noise of its data, is a pure function of (seed, t)."""

from __future__ import annotations

import dataclasses
import functools
import math
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

# This number is folded into the seed's key, so that the noise of the data differs from that of the
# model, which may have the same seed.
DATA_STREAM = 0x64617461


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """The endless sequence of shuffled batches of a split.

    Each epoch is a random permutation of the examples. Batch t consists of positions t * size to
    (t + 1) * size - 1 of all epochs concatenated, so no example is dropped, and a batch may span
    two epochs. With `seeds` = S there are S independent streams of batches, for S models that are
    trained together; stream i has the batches of `Batches(split, size, seed + i)`.

        batches = Batches(train, size=128, seed=0)
        batches[7]                    # Batch, leaves [128, ...]
        batches.source(500, 100)      # batches 500 to 599, for aejax.chunked

    Args:
      split: the split whose examples are used.
      size: the batch size, B.
      seed: the seed of the order and of the noise.
      seeds: the number of streams, S; None: one stream, whose batches have no axis S. `ae.loop`
        sets it for a learner of several seeds, whose models then see different batches.
      resident_limit: a split of more bytes is not kept on the device; its batches are sent when
        they are needed.
      sharding: the sharding of a split kept on the device; None: the first device.
      process: (index, count) of this process, which loads its slice of every batch; None asks JAX.
    """

    split: Split
    size: int
    seed: int = 0
    seeds: int | None = None
    resident_limit: int = 2**30
    sharding: Any = None
    process: tuple[int, int] | None = None

    def __post_init__(self):
        if not isinstance(self.split, Split):
            raise UserError(
                f"Batches needs one Split, not a {type(self.split).__name__}: choose one of the "
                "three in train, validation, test = aejax.data.arrays(x)"
            )
        self.split.check_not_empty()
        at_least(1, "the batch size", self.size)
        if self.size > len(self.split):
            raise UserError(
                f"batch size {self.size} is larger than {self.split.name}, "
                f"which has {len(self.split)} examples: give a smaller one"
            )
        at_least(0, "the data seed", self.seed)
        at_least(1, "seeds", 1 if self.seeds is None else self.seeds)
        if self.process is not None and self.size % self.process[1]:
            raise UserError(
                f"the batch size {self.size} is not a multiple of the number of processes, "
                f"{self.process[1]}: choose one that is"
            )

    def __getitem__(self, t: int) -> Batch:
        """Returns batch t, with leaves [B, ...] or [S, B, ...].

        If there are several processes, each gets its own slice along the axis B.
        """
        arrays, key = self.split.rows(self.rows(t, 1)[..., 0, :]), self.key
        if self.seeds is None:
            whole = self.split.prepare(jax.random.fold_in(key, t), arrays)
        else:
            keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(key, t)
            whole = jax.vmap(self.split.prepare)(keys, arrays)
        if self._process[1] == 1:
            return whole
        # The whole batch was prepared, because a row's noise depends on its place in the batch.
        axis = 0 if self.seeds is None else 1
        return jax.tree.map(lambda leaf: np.take(np.asarray(leaf), self._slice, axis), whole)

    def steps(self, epochs: float) -> int:
        """Returns the number of training steps in `epochs` passes through the split, rounded up."""
        return math.ceil(epochs * len(self.split) / self.size)

    def epoch(self, step: int) -> float:
        """Returns the number of passes through the split in `step` training steps."""
        return step * self.size / len(self.split)

    def rows(self, t: int, count: int) -> np.ndarray:
        """Returns the indices of the examples in batches t to t + count - 1, i32[(S,) count, B]."""
        at_least(0, "the batch number", t)
        first, many = t * self.size, count * self.size
        members = [self._stream(self.seed + i, first, many) for i in range(self.seeds or 1)]
        rows = np.stack(members).reshape(-1, count, self.size)
        return rows[0] if self.seeds is None else rows

    def _stream(self, seed: int, start: int, count: int) -> np.ndarray:
        """Returns the indices i32[count] of the examples in the order that one seed determines.

        Args:
          seed: the seed of the order.
          start: the first position in the order, counted over all epochs.
          count: the number of positions.
        """
        return stream(len(self.split), seed, start, count)

    @functools.cached_property
    def key(self) -> Key:
        """The key of the data's noise, Key[] or Key[S]; batch t uses fold_in(key, t)."""
        # The keys are always threefry: under vmap, rbg would use the first stream's key for all.
        keys = [
            jax.random.fold_in(jax.random.key(self.seed + i, impl="threefry2x32"), DATA_STREAM)
            for i in range(self.seeds or 1)
        ]
        return keys[0] if self.seeds is None else jnp.stack(keys)

    @functools.cached_property
    def resident(self) -> dict[str, Array] | None:
        """The whole split on the device, leaves [N, ...].

        It is None if the split is too large or is read from the disk, or if there are several
        processes.
        """
        arrays = self.split.arrays
        held = sum(array.nbytes for array in arrays.values())
        if self.split.reader is not None or held > self.resident_limit or self._process[1] > 1:
            return None
        return jax.device_put({n: np.asarray(a) for n, a in arrays.items()}, self.sharding)

    @functools.cached_property
    def _process(self) -> tuple[int, int]:
        """The index of this process and the number of processes.

        They are read at the first use, because jax.distributed may start after the data is loaded.
        """
        if self.process is not None:
            return self.process
        found = jax.process_index(), jax.process_count()
        dataclasses.replace(self, process=found)  # raises if processes cannot share a batch equally
        return found

    def source(self, t: int, chunk: int, limit: int | None = None) -> Source:
        """Returns the batches of several steps, which `aejax.chunked` runs in one call.

        Args:
          t: the first step.
          chunk: the number of batches in the source, T.
          limit: the number of steps of the run. The source holds `chunk` batches in any case, but
            its `count`, the number to train on, leaves out those of step `limit` and later.

        Returns:
          A Source whose batch i is bitwise equal to `self[t + i]`. If the whole split is on the
          device, the arrays are the whole split and rows is i32[T, B] or i32[S, T, B]; otherwise
          the arrays are the stacked batches, leaves [T, B, ...] or [S, T, B, ...], and each process
          has its slice of B.

        Raises:
          UserError: if t or chunk is out of range.
        """
        at_least(1, "the chunk", chunk)
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
        """Reads the arrays of batches t to t + T - 1, where T = chunk.

        Returns:
          Leaves [T, b, ...] or [S, T, b, ...], where b is the number of the B examples of a batch
          that this process loads.
        """
        return self.split.rows(self.rows(t, chunk)[..., self._slice])

    @functools.cached_property
    def _slice(self) -> np.ndarray:
        """The indices, within a batch, of the examples that this process loads, i64[b]."""
        index, processes = self._process
        share = self.size // processes
        return np.arange(index * share, (index + 1) * share)

    @functools.cached_property
    def _ahead(self) -> Ahead:
        return Ahead(self._stacked)
