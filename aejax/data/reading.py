"""Reads data sets that do not fit in memory: examples in parallel, and batches in advance."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from aejax.errors import UserError
from aejax.files import check_regular, read_bytes, reading, reason
from aejax.files.json_file import MOST_BYTES
from aejax.optional import needs

# The number of threads that read from the disk and decode pictures in parallel.
THREADS = 16


class Reader(Protocol):
    """Random access to the examples of a large data set, such as a data source of tfds."""

    def __len__(self) -> int:
        """Returns the number of examples, N."""
        ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        """Returns one example: arrays by name, without the leading axis N."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Chained:
    """Several readers, such as the splits of a data set, concatenated to one."""

    readers: Sequence[Reader]

    def __len__(self) -> int:
        return sum(len(reader) for reader in self.readers)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        for reader in self.readers:
            if index < len(reader):
                return reader[index]
            index -= len(reader)
        raise IndexError(f"the index is too large: there are {len(self)} examples")


def gather(reader: Reader, indices: np.ndarray) -> dict[str, np.ndarray]:
    """Reads examples in parallel: each of several threads reads consecutive entries of `indices`.

    Args:
      reader: the reader of the data set.
      indices: the indices of the examples, i32[...].

    Returns:
      The arrays by name, leaves [..., *event], in the order of the indices.
    """
    if getattr(reader, "batched", False):
        return _in_batches(reader, indices)
    parts = np.array_split(indices.reshape(-1), min(THREADS, indices.size))

    def read(part: np.ndarray) -> list[Mapping[str, Any]]:
        return [reader[int(index)] for index in part]

    with ThreadPoolExecutor(len(parts)) as threads:
        examples = [example for part in threads.map(read, parts) for example in part]
    return {
        name: stacked(name, [example.get(name) for example in examples]).reshape(
            *indices.shape, *np.shape(examples[0][name])
        )
        for name in examples[0]
    }


def stacked(name: str, values: Sequence[Any]) -> np.ndarray:
    """Stacks an array of several examples, [n, *event].

    Raises:
      UserError: if two examples have different shapes, or one lacks the array.
    """
    shapes = {np.shape(value) if value is not None else "absent" for value in values}
    if len(shapes) > 1:
        raise UserError(
            f"the examples of the data set differ in {name}, whose shapes are "
            f"{', '.join(sorted(map(str, shapes)))}: give every example the same shape"
        )
    return np.stack(values)


def _in_batches(reader: Any, indices: np.ndarray) -> dict[str, np.ndarray]:
    """Reads examples with one call of `reader.many` for each batch of indices, indices[..., :].

    Returns:
      The arrays by name, leaves [..., *event], in the order of the indices.
    """
    batches = [reader.many(batch) for batch in indices.reshape((-1, indices.shape[-1]))]
    return {
        name: np.concatenate([batch[name] for batch in batches]).reshape(
            (*indices.shape, *batches[0][name].shape[1:])
        )
        for name in batches[0]
    }


def open_builder(folder: Path, purpose: str) -> Any:
    """Returns the tfds builder of a prepared data set, whose files are checked first.

    Args:
      folder: the folder with the files of one version.
      purpose: what needs tensorflow-datasets, for the message if it is missing.

    Raises:
      UserError: if a file is damaged, no regular file, or a description of an implausible size.
    """
    tfds = needs("tensorflow_datasets", purpose)
    try:
        for path in folder.iterdir():
            if path.suffix == ".json":  # tfds reads these whole
                read_bytes(path, MOST_BYTES)
            else:
                check_regular(path)
        return tfds.builder_from_directory(str(folder))
    except Exception as error:  # tfds raises errors of many types if a folder was changed
        raise UserError(
            f"{folder} is damaged ({reason(error)}): delete the folder and start again"
        ) from error


def reopen(folder: Path, splits: Sequence[str]) -> Reader:
    """Opens a prepared data set as one reader of its splits, concatenated in the given order.

    Raises:
      UserError: if files are missing or damaged.
    """
    builder = open_builder(folder, "reading a data set that does not fit in memory")
    with reading(folder, "delete the folder and start again", says="is damaged"):
        sources = builder.as_data_source()
        return Chained([sources[split] for split in splits])


class Ahead:
    """Reads the batches of the next steps in a thread while the device trains on earlier ones.

    Attributes:
      read: a function from (t, chunk) to the arrays of the batches t to t + chunk - 1.
    """

    def __init__(self, read: Callable[[int, int], Any]):
        self.read = read
        self._waiting: tuple[tuple[int, int], Future] | None = None

    def __call__(self, t: int, chunk: int, limit: int | None) -> Any:
        """Returns read(t, chunk) and starts reading read(t + chunk, chunk) in the background.

        Nothing is read in the background if t + chunk is `limit` or more.
        """
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
            except BaseException as error:  # raised again in the thread that asks for the result
                future.set_exception(error)

        # A daemon thread lets a run that ends early exit without waiting for unused batches.
        threading.Thread(target=work, daemon=True).start()
        return future
