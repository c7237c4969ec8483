"""The tokens of one hook as an array [N, d] whose rows are read from the shards when indexed."""

from __future__ import annotations

import mmap
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aejax.errors import UserError
from aejax.files import open_file

# The number of tokens in a block, which is memory-mapped as a whole. The shuffled order of training
# uses the tokens of a block close to each other.
BLOCK = 256
# Linux allows 65,530 memory maps per process, and other libraries need some of them.
MOST_MAPS = 2**14
# On a CPU, XLA uses an array without a copy if its address is a multiple of this number of bytes.
ALIGNMENT = 64


class Tokens:
    """Random access to the tokens of one hook; it may be used from several threads.

    Only the blocks in use are memory-mapped, since a map of the whole store would count against a
    limit on virtual memory. A row is copied once, from the kernel's page cache to the result.

    Attributes:
      shape: (N, d).
      dtype: the dtype of the stored elements.
      paths: the files of all shards, even if this array covers only some of their tokens.
      first: the index of this array's first token among the tokens of all shards.
    """

    ndim = 2

    def __init__(self, files: Sequence[tuple[Path, int]], size: int, dtype: np.dtype):
        """Stores where the shards are; files are opened only when rows are read.

        Args:
          files: the path and the number of tokens of each shard, in order.
          size: the number of elements of a token, d.
          dtype: the dtype of the stored elements.
        """
        self.paths = [path for path, _ in files]
        self._starts = np.cumsum([0] + [tokens for _, tokens in files])
        self.dtype = np.dtype(dtype)
        self.first, self.shape = 0, (int(self._starts[-1]), size)
        self._row = size * self.dtype.itemsize
        self._lock = threading.Lock()
        self._maps: OrderedDict[int, np.ndarray] = OrderedDict()  # block -> [n, d], oldest first
        self._most = 0

    def between(self, start: int, stop: int) -> Tokens:
        """Returns the tokens start to stop - 1 as a new array, without reading them."""
        files = [(p, int(n)) for p, n in zip(self.paths, np.diff(self._starts), strict=True)]
        part = Tokens(files, self.shape[1], self.dtype)
        part.first, part.shape = self.first + start, (stop - start, self.shape[1])
        return part

    @property
    def nbytes(self) -> int:
        """The number of bytes of all tokens on the disk."""
        return self.shape[0] * self._row

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.read(0, len(self)).astype(dtype or self.dtype, copy=False)

    def reserve(self, tokens: int) -> None:
        """Allows the blocks of up to `tokens` tokens to stay memory-mapped at a time."""
        self._most = min(MOST_MAPS, max(self._most, -(-tokens // BLOCK) + 1))

    def __getitem__(self, indices: np.ndarray | slice) -> np.ndarray:
        """Reads the rows with the given indices.

        Args:
          indices: integers from 0 to N - 1, [...], or a slice.

        Returns:
          The rows [..., d], in the stored dtype.

        Raises:
          UserError: if a shard is missing or truncated, or the indices are not integers.
          IndexError: if an index is out of range.
        """
        if isinstance(indices, slice):
            start, stop, step = indices.indices(len(self))
            return self.read(start, stop) if step == 1 else self[np.arange(start, stop, step)]
        wanted = _numbers(indices, len(self))
        flat = wanted.reshape(-1)
        rows = self._empty(len(flat))
        with self._lock:
            # In the shuffled order of training, nearby indices belong to the same few blocks, so
            # each piece of the indices needs only few blocks.
            piece = max(1, self._most // 2) * BLOCK
            for start in range(0, len(flat), piece):
                self._gather(flat[start : start + piece], rows[start : start + piece])
        return rows.reshape(*wanted.shape, self.shape[1])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Reads the tokens start to stop - 1, [stop - start, d], without a memory map."""
        rows = self._empty(max(0, stop - start))
        self._read(start, rows)
        return rows

    def _empty(self, tokens: int) -> np.ndarray:
        """Allocates an aligned, uninitialised array [tokens, d]."""
        memory = np.empty(tokens * self._row + ALIGNMENT, np.uint8)
        skipped = -memory.ctypes.data % ALIGNMENT
        content = memory[skipped : skipped + tokens * self._row]
        return content.view(self.dtype).reshape(tokens, self.shape[1])

    def _gather(self, flat: np.ndarray, rows: np.ndarray) -> None:
        """Copies the tokens with the indices flat, i64[n], into the array rows, [n, d]."""
        blocks = flat // BLOCK
        order = np.argsort(blocks, kind="stable")
        needed, starts = np.unique(blocks[order], return_index=True)
        if len(needed) > self._most:
            # The indices need more blocks than may be mapped (without `reserve` none may be), so
            # the rows are read from the files directly.
            self._read_runs(flat, np.arange(len(flat)), rows)
            return
        for block, where in zip(needed.tolist(), np.split(order, starts[1:]), strict=True):
            rows[where] = self._mapped(block)[flat[where] - block * BLOCK]
        while len(self._maps) > self._most:
            self._maps.popitem(last=False)

    def _mapped(self, block: int) -> np.ndarray:
        """Returns the tokens of a block, [n, d], as a view of a memory map."""
        if block in self._maps:
            self._maps.move_to_end(block)
            return self._maps[block]
        start = block * BLOCK
        stop = min(start + BLOCK, len(self))
        shard = int(np.searchsorted(self._starts, start + self.first, side="right")) - 1
        if stop + self.first <= self._starts[shard + 1]:
            inside = (start + self.first - int(self._starts[shard])) * self._row
            found = _map(self.paths[shard], inside, (stop - start) * self._row)
            found = found.view(self.dtype).reshape(stop - start, self.shape[1])
        else:
            found = self.read(start, stop)  # the block lies in two shards
        self._maps[block] = found
        return found

    def _read_runs(self, flat: np.ndarray, where: np.ndarray, rows: np.ndarray) -> None:
        """Copies tokens into rows, without memory maps; consecutive tokens are read together.

        Args:
          flat: the indices of the tokens of all rows, i64[n].
          where: the indices of the rows to fill.
          rows: the array [n, d] to fill; rows[where] becomes the tokens flat[where].
        """
        apart = (np.diff(where) != 1) | (np.diff(flat[where]) != 1)
        for run in np.split(where, np.flatnonzero(apart) + 1):
            self._read(int(flat[run[0]]), rows[run[0] : run[-1] + 1])

    def _read(self, start: int, rows: np.ndarray) -> None:
        """Reads the n tokens from index `start` on into the contiguous array rows, [n, d]."""
        start, done = start + self.first, 0
        content = rows.view(np.uint8).reshape(-1).data
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while done < len(rows):
            inside = start + done - int(self._starts[shard])
            count = min(len(rows) - done, int(self._starts[shard + 1]) - start - done)
            target = content[done * self._row : (done + count) * self._row]
            _fill(self.paths[shard], inside * self._row, target)
            done, shard = done + count, shard + 1


class Selected:
    """Some of the tokens of one hook, as an array [N, d] whose rows are read when indexed.

    Attributes:
      tokens: the tokens of the hook.
      rows: the indices of the chosen tokens in ascending order, i64[N].
      shape: (N, d).
      dtype: the dtype of the stored elements.
    """

    ndim = 2

    def __init__(self, tokens: Tokens, rows: np.ndarray):
        self.tokens, self.rows = tokens, rows
        self.dtype, self.shape = tokens.dtype, (len(rows), tokens.shape[1])

    @property
    def nbytes(self) -> int:
        """The number of bytes of the chosen tokens."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        # Large blocks are read in order, which is faster than reading the tokens one by one.
        parts = [np.empty((0, self.shape[1]), self.dtype)]
        for start in range(0, len(self.tokens), BLOCK * BLOCK):
            first, last = np.searchsorted(self.rows, [start, start + BLOCK * BLOCK])
            if last > first:
                block = self.tokens.read(start, min(start + BLOCK * BLOCK, len(self.tokens)))
                parts.append(block[self.rows[first:last] - start])
        return np.concatenate(parts).astype(dtype or self.dtype, copy=False)

    def reserve(self, tokens: int) -> None:
        """Allows the blocks of about `tokens` chosen tokens to stay memory-mapped at a time."""
        self.tokens.reserve(-(-tokens * len(self.tokens) // max(1, len(self))))

    def __getitem__(self, indices: np.ndarray | slice) -> np.ndarray:
        """Reads rows by their indices among the chosen tokens; see `Tokens`."""
        if isinstance(indices, slice):
            return self.tokens[self.rows[indices]]
        return self.tokens[self.rows[_numbers(indices, len(self))]]


def _numbers(indices: Any, tokens: int) -> np.ndarray:
    """Returns indices as i64[...] after checking that they are integers from 0 to N - 1."""
    wanted = np.asarray(indices)
    # A mask read as integers would give tokens 0 and 1, and a tuple would index more axes.
    if isinstance(indices, tuple) or (wanted.size and wanted.dtype.kind not in "iu"):
        raise UserError(
            f"tokens cannot be indexed by a {type(indices).__name__} of {wanted.dtype}: give "
            "an array of integers or a slice (for a mask, np.flatnonzero(mask))"
        )
    wanted = wanted.astype(np.int64, copy=False)
    if wanted.size and not 0 <= wanted.min() <= wanted.max() < tokens:
        raise IndexError(
            f"the indices reach from {wanted.min()} to {wanted.max()}, but the indices of {tokens} "
            f"tokens are 0 to {tokens - 1}"
        )
    return wanted


def _map(path: Path, offset: int, size: int) -> np.ndarray:
    """Memory-maps `size` bytes of a file from `offset` on, and advises the kernel to read ahead.

    Returns:
      The bytes, u8[size].

    Raises:
      UserError: if the file cannot be read.
    """
    skipped = offset % mmap.ALLOCATIONGRANULARITY
    try:
        with open_file(path) as file:
            window = mmap.mmap(
                file.fileno(), size + skipped, access=mmap.ACCESS_READ, offset=offset - skipped
            )
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): restore this file") from error
    if hasattr(mmap, "MADV_WILLNEED"):
        window.madvise(mmap.MADV_WILLNEED)
    return np.frombuffer(window, np.uint8, size, skipped)


def _fill(path: Path, offset: int, target: memoryview) -> None:
    """Reads bytes of a file, from `offset` on, into `target` until it is full.

    Raises:
      UserError: if the file cannot be read or ends too early.
    """
    try:
        with open_file(path) as file:
            file.seek(offset)
            read = 0
            while read < len(target):
                count = file.readinto(target[read:])
                if not count:
                    raise EOFError(f"it ends {len(target) - read} bytes early")
                read += count
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({error}): restore this file") from error
