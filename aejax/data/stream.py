"""Batches of an iterator, whose examples can only be read in order, not by index.

    batches = Stream(make, length=50_000, size=128)      # make() returns a new iterator
    for state, metrics in ae.loop(learner, state, batches, epochs=10): ...

The examples are used in the iterator's order, so a run is reproducible only if `make()` always
yields the same examples in the same order. A run that resumes at step t first reads and discards
the examples of the steps before t.
"""

from __future__ import annotations

import itertools
import math
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax.checks import at_least
from aejax.data.batches import DATA_STREAM
from aejax.data.columns import channels_last, scale_of, tell
from aejax.data.reading import Ahead, stacked
from aejax.data.sources import named
from aejax.data.to_batch import Prepare
from aejax.errors import UserError
from aejax.types import Batch, Key, Source


class Stream:
    """The endless sequence of batches of an iterator's examples, epoch after epoch.

    Batches are read in a background thread before training needs them. Models that `ae.seeds`
    trains together must share the stream: ae.seeds(learner, n, shared_data=True).

    Args:
      make: a function that returns a new iterator over the examples; an example is an array, a
        tuple (x, y) or a mapping of arrays by name.
      length: the number of examples of one pass.
      size: the batch size, B.
      seed: the seed of the noise that preparing a batch may draw.
      field: the name of the array that becomes x, where an example is a mapping.
      scale: the stored value that becomes 1.0; None: 255 for pictures of bytes, else 1.
      changes: changes of each batch, as for `ae.data.changed`, such as ae.data.changes.Missing().

    Raises:
      UserError: if `make` is not a function, or if `length` or `size` is below 1; while reading, if
        a pass has fewer examples than `length`.
    """

    def __init__(
        self,
        make: Callable[[], Iterable[Any]],
        length: int,
        size: int,
        seed: int = 0,
        field: str = "x",
        scale: float | None = None,
        changes: Sequence[Any] = (),
    ):
        if not callable(make):
            raise UserError(
                f"Stream got a {type(make).__name__}, which can be read only once: give a function "
                "that returns a new iterator, such as lambda: iter(files)"
            )
        at_least(1, "the length of a stream", length)
        at_least(1, "batch size", size)
        self.make, self.length, self.size, self.seed = make, length, size, seed
        first = next(iter(make()), None)
        if first is None:
            raise UserError("the iterator of a stream has no example: give one that has some")
        first = named(first)
        if field not in first:
            raise UserError(
                f"the examples of the stream have the arrays of numbers {sorted(first)}, but no "
                f"{field!r}: give the name of the one that becomes x as field"
            )
        x = channels_last(first[field][None], "last")
        self.prepare = Prepare(field=field, scale=scale_of(x, scale), changes=tuple(changes))
        self._examples: Iterator[dict[str, np.ndarray]] | None = None
        self._position = 0  # the number of batches that were read
        self._told = False  # whether a message said that a pass has more examples
        self._lock = threading.Lock()
        self._ahead = Ahead(self._read)

    @property
    def key(self) -> Key:
        """The key of the data's noise; batch t uses fold_in(key, t)."""
        return jax.random.fold_in(jax.random.key(self.seed, impl="threefry2x32"), DATA_STREAM)

    def steps(self, epochs: float) -> int:
        """Returns the number of training steps in `epochs` passes, rounded up."""
        return math.ceil(epochs * self.length / self.size)

    def epoch(self, step: int) -> float:
        """Returns the number of passes through the examples in `step` training steps."""
        return step * self.size / self.length

    def __getitem__(self, t: int) -> Batch:
        """Returns batch t, leaves [B, ...]."""
        arrays = {name: column[0] for name, column in self._read(t, 1).items()}
        return self.prepare(jax.random.fold_in(self.key, t), arrays)

    def source(self, t: int, chunk: int, limit: int | None = None) -> Source:
        """Returns batches t to t + chunk - 1 as a Source; training stops before batch `limit`."""
        count = chunk if limit is None else max(0, min(chunk, limit - t))
        arrays = self._ahead(t, chunk, limit)
        return Source(arrays, None, self.key, jnp.asarray(count, jnp.int32), self.prepare)

    def _read(self, t: int, chunk: int) -> Mapping[str, np.ndarray]:
        """Reads T = chunk batches from batch t on, leaves [T, B, ...]."""
        with self._lock:
            if self._examples is None or t != self._position:
                if t:
                    print(
                        f"reading {t * self.size:,} examples again, to reach batch {t}: the "
                        "results are reproducible only if the iterator repeats its examples",
                        file=sys.stderr,
                    )
                self._examples, self._position = self._pass_after_pass(), t
                next(itertools.islice(self._examples, t * self.size, t * self.size), None)
            read = list(itertools.islice(self._examples, chunk * self.size))
            self._position = t + chunk
        shape = (chunk, self.size)
        return {
            name: stacked(name, [one.get(name) for one in read]).reshape(
                (*shape, *read[0][name].shape)
            )
            for name in read[0]
        }

    def _pass_after_pass(self) -> Iterator[dict[str, np.ndarray]]:
        while True:
            count = 0
            examples, shapes = iter(self.make()), {}
            for example in itertools.islice(examples, self.length):
                count += 1
                one = named(example)
                shapes = {name: value.shape for name, value in one.items()}
                yield one
            if count < self.length:
                raise UserError(
                    f"the stream ended after {count} examples, with arrays of shapes {shapes}, but "
                    f"its length was given as {self.length}: give the number of examples of one "
                    "pass, and make the iterator yield single examples instead of batches"
                )
            if not self._told and next(examples, None) is not None:
                self._told = True
                tell(
                    f"the iterator of a stream has more than the {self.length} examples that were "
                    "given as its length, and each pass uses only the first of them: give the "
                    "number of examples of one pass"
                )
