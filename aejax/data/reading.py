"""Reading examples that do not fit memory: many at once by grain, and one chunk ahead."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from aejax.optional import needs

# Reads that wait for a disk or decode a picture side by side.
THREADS = 16


class Reader(Protocol):
    """Random access to a data set that is too large for memory: a tfds data source, for one."""

    def __len__(self) -> int:
        """The number of examples."""
        ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        """One example, a mapping from a name to an array without the leading N."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Chained:
    """The splits of a data set one after the other, as one reader."""

    readers: Sequence[Reader]

    def __len__(self) -> int:
        return sum(len(reader) for reader in self.readers)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        for reader in self.readers:
            if index < len(reader):
                return reader[index]
            index -= len(reader)
        raise IndexError(f"example {index} of {len(self)}")


def gather(reader: Reader, indices: np.ndarray) -> dict[str, np.ndarray]:
    """Examples by their number, read side by side by grain's threads.

    Args:
      reader: random access to one example.
      indices: i32[...].

    Returns:
      Leaves [..., *event], in the order of the indices.

    Raises:
      UserError: grain is not installed.
    """
    grain = needs("grain", "reading a data set that does not fit memory")
    flat = indices.reshape(-1)
    chosen = grain.MapDataset.source(flat).map(lambda index: dict(reader[int(index)]))
    threads = max(1, min(THREADS, len(flat)))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    examples = list(chosen.to_iter_dataset(options))
    return {
        name: np.stack([example[name] for example in examples]).reshape(
            *indices.shape, *np.shape(examples[0][name])
        )
        for name in examples[0]
    }


def reopened(folder: Path, splits: Sequence[str]) -> Reader:
    """The reader of a large data set that was prepared before, its splits in the given order."""
    tfds = needs("tensorflow_datasets", "reading a data set that does not fit memory")
    sources = tfds.builder_from_directory(str(folder)).as_data_source()
    return Chained([sources[split] for split in splits])


class Ahead:
    """Reads the chunk that is asked for next while the device works on the one before."""

    def __init__(self, read: Callable[[int, int], Any]):
        self.read = read
        self._waiting: tuple[tuple[int, int], Future] | None = None

    def __call__(self, t: int, chunk: int, limit: int | None) -> Any:
        """Chunk (t, chunk), after which (t + chunk, chunk) is begun if it starts before limit."""
        waiting, self._waiting = self._waiting, None
        hit = waiting is not None and waiting[0] == (t, chunk)
        arrays = waiting[1].result() if waiting and hit else self.read(t, chunk)
        if limit is None or t + chunk < limit:
            self._waiting = ((t + chunk, chunk), self._begin(t + chunk, chunk))
        return arrays

    def _begin(self, t: int, chunk: int) -> Future:
        future = Future()

        def work():
            try:
                future.set_result(self.read(t, chunk))
            except BaseException as error:  # handed over to whoever asks for the result
                future.set_exception(error)

        # A daemon, so that a run that ends early does not wait for a chunk that nobody needs.
        threading.Thread(target=work, daemon=True).start()
        return future
