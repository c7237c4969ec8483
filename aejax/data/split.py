"""One split of a data set (train, validation or test): its examples and their origin."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import jax
import numpy as np

from aejax.data.form import Form
from aejax.data.moments import Moments, with_examples
from aejax.data.reading import Reader, gather
from aejax.errors import UserError
from aejax.types import Batch, Key, Support

# The fixed seed of the noise in an evaluation that is given no key, so results are reproducible.
EVALUATION_SEED = 20_131_220
READ = 64  # how many examples of a split that is read during training are checked
FACTOR = "label_"  # the prefix of the names of columns that hold known factors of variation


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One split of a data set: train, validation or test.

    If the examples fit in memory, `arrays` holds them all: for pictures `image` u8[N, H, W, C] and
    perhaps `label` i32[N], or `label_*` for several known factors; for a user's own arrays `x`
    f32[N, *event] and perhaps `y`. Otherwise `reader` reads one example at a time, and `arrays`
    holds only the labels. A split for which the user asked for no examples has the length 0.
    """

    name: str  # the names of the data set and the split, such as "mnist/train"
    arrays: Mapping[str, np.ndarray]  # leaves [N, ...]
    prepare: Callable[[Key, Any], Batch]  # (key, arrays of a batch) -> Batch, pure and hashable
    fingerprint: str  # sha256 over the content, independent of the file format
    # "dynamic", "static" or "none"; it decides whether results are called nll or bce.
    binarised: str = "none"
    binarise_seed: int | None = None  # the seed of pixels drawn only once; None: there are none
    classes: tuple[str, ...] = ()  # the names of the labels, if they have names
    origin: str = ""  # where the files came from and whether their content was verified
    reader: Reader | None = None  # None if all examples are in `arrays`
    # The moments of all tokens of the activation store that this split is a part of; None: the
    # split is of another data set, or was shortened by `take`.
    stored_moments: Mapping[str, tuple[Moments, ...]] | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # more for `provenance`
    # How a user's values became these numbers, for new rows; None for data sets with a name.
    form: Form | None = None

    def __len__(self) -> int:
        if self.reader is not None:
            return len(self.reader)
        return len(next(iter(self.arrays.values())))

    @functools.cached_property
    def event(self) -> tuple[int, ...]:
        """The shape of one example's x, without the batch axis."""
        first = self.rows(np.zeros(min(1, len(self)), np.int32))
        prepared = jax.eval_shape(self.prepare, jax.random.key(0), first)
        return prepared.x.shape[1:]

    @functools.cached_property
    def labels(self) -> np.ndarray | None:
        """The labels i32[N], or None if there are none."""
        column = self.arrays.get("label", self.arrays.get("y"))
        if column is None or column.ndim != 1 or column.dtype.kind not in "iub":
            return None
        return column.astype(np.int32)

    @functools.cached_property
    def factors(self) -> dict[str, np.ndarray]:
        """The known factors of variation by name, i32[N] each; empty if there are none."""
        columns = self.arrays.items()
        return {k.removeprefix(FACTOR): column for k, column in columns if k.startswith(FACTOR)}

    @functools.cached_property
    def extent(self) -> tuple[float, float]:
        """The smallest and largest value of all targets, computed once; NaN if a target is NaN."""
        low, high = np.inf, -np.inf
        for batch in self.batches(4096):
            target = np.asarray(batch.target)
            low, high = np.minimum(low, target.min()), np.maximum(high, target.max())
        return float(low), float(high)

    @functools.cached_property
    def moments(self) -> Mapping[str, tuple[Moments, ...]]:
        """The mean, variance and mean norm of x, target and context, by these names.

        Each value is a tuple with one entry, or with one for each layer of examples [layers, size].
        For a split of an activation store they are those of the whole store; otherwise they are
        computed from all examples.
        """
        if self.stored_moments is not None:
            return self.stored_moments
        found: dict[str, tuple[Moments, ...]] = {}
        for batch in self.batches(4096):
            for name in ("x", "target", "context"):
                values = getattr(batch, name)
                if values is not None and hasattr(values, "shape"):
                    found[name] = with_examples(found.get(name), np.asarray(values))
        return found

    @property
    def transcodes(self) -> bool:
        """Whether input and target are activations of different hooks, as a transcoder needs."""
        return getattr(self.prepare, "transcodes", False)

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the stored examples with the given indices.

        Args:
          indices: indices of examples, from 0 to N - 1, i32[...].

        Returns:
          The stored arrays by name, leaves [..., *event].
        """
        if self.reader is None:
            return {name: array[indices] for name, array in self.arrays.items()}
        return gather(self.reader, np.asarray(indices))

    def batches(self, size: int, key: Key | None = None) -> Iterator[Batch]:
        """Yields all examples once, in order, for evaluation.

        Args:
          size: the number of examples in a batch; the last batch may be smaller.
          key: the key of the noise, Key[]; by default a fixed key, so results are reproducible.

        Yields:
          A Batch with leaves [B, ...]; batch i is prepared with the key fold_in(key, i).

        Raises:
          UserError: if the split has no examples, or size is below 1.
        """
        self.check_not_empty()
        if size < 1:
            raise UserError(f"the batch size for {self.name} is {size}: give 1 or more")
        key = jax.random.key(EVALUATION_SEED, impl="threefry2x32") if key is None else key
        for i, start in enumerate(range(0, len(self), size)):
            indices = np.arange(start, min(start + size, len(self)), dtype=np.int32)
            yield self.prepare(jax.random.fold_in(key, i), self.rows(indices))

    def check_not_empty(self) -> None:
        """Raises UserError if the split has no examples, because none were asked for."""
        if not len(self):
            raise UserError(
                f"{self.name} has no examples, because none were asked for: give a share or a "
                f"number of examples as {self.name.rpartition('/')[2]}="
            )

    def take(self, n: int) -> Split:
        """Returns a Split of the first n examples, or of all if there are fewer.

        Raises:
          UserError: if n is below 1.
        """
        if n < 1:
            raise UserError(
                f"the number of examples to take from {self.name} is {n}: give 1 or more"
            )
        if n >= len(self):
            return self
        arrays = self.rows(np.arange(n, dtype=np.int32))
        return dataclasses.replace(
            self,
            arrays=arrays,
            fingerprint=fingerprint(arrays),
            reader=None,
            stored_moments=None,
        )

    def provenance(self) -> dict[str, Any]:
        """Returns the description of the data that environment.json records, as JSON values."""
        return {
            "name": self.name,
            "examples": len(self),
            "event": list(self.event),
            "origin": self.origin,
            "sha256": self.fingerprint,
            "binarised": self.binarised,
            "binarise_seed": self.binarise_seed,
            **self.facts,
        }


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the sha256 over the names, dtypes, shapes and values of arrays, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        # The values are hashed as little-endian, so that the hash is the same on every machine.
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


def check_support(
    data: Any, support: tuple[float, float] | Support | None, rows: int = 4096
) -> None:
    """Checks that all targets lie in a likelihood's support, such as [0, 1] for a Bernoulli.

    Of a split that is read during training only the first batch is checked. Targets whose mask is 0
    are not checked. `ae.loop` and evaluations call this function; a training loop of your own may
    call it as check_support(train, learner.support).

    Args:
      data: a split, or other examples with a method `batches`.
      support: the range of targets that the likelihood accepts; None: all real numbers.
      rows: the number of examples to check at a time.

    Raises:
      UserError: if a target lies outside the support; the message names the first such example and
        its value.
    """
    if support is None:
        return
    low, high, whole = Support(*cast("tuple[Any, ...]", support))
    read = isinstance(data, Split) and data.reader is not None
    known = isinstance(data, Split) and not read and not whole
    if known and low <= data.extent[0] and data.extent[1] <= high:
        return
    start, name = 0, f" of {data.name}" if isinstance(data, Split) else ""
    for batch in data.batches(READ if read else rows):
        check_targets(batch, support, name, start)
        start += rows
        if read:
            return


def check_targets(
    batch: Batch, support: tuple[float, float] | Support, name: str = "", first: int = 0
) -> None:
    """Checks that the targets of one batch lie in a likelihood's support, as `check_support` does.

    Args:
      batch: the batch, with leaves [B, ...].
      support: the targets to which the likelihood gives a probability.
      name: the words after the number of an example in the message.
      first: the number of the first example.
    """
    low, high, whole = Support(*cast("tuple[Any, ...]", support))
    target = np.asarray(batch.target)
    if batch.mask is not None:
        seen = np.broadcast_to(np.asarray(batch.mask), target.shape) != 0
        target = np.where(seen, target, low if math.isfinite(low) else high)
    outside = first_outside(target, low, high)
    if outside is not None:
        row, value = outside
        raise UserError(
            f"example {first + row}{name} holds {value:g}, outside [{low:g}, {high:g}], where "
            "the likelihood is not defined: rescale the data or choose another likelihood"
        )
    flat = target.reshape(len(target), -1)
    broken = flat != np.floor(flat) if whole else np.zeros_like(flat[:, :0], bool)
    if np.any(broken):
        row = int(np.argmax(broken.any(axis=1)))
        value = flat[row][np.argmax(broken[row])]
        raise UserError(
            f"example {first + row}{name} holds {value:g}, but the likelihood is defined for "
            "whole numbers only: give counts, or choose another likelihood"
        )


def first_outside(x: np.ndarray, low: float = 0.0, high: float = 1.0) -> tuple[int, float] | None:
    """Returns (row, value) of the first value of x [N, ...] outside [low, high], or None."""
    if x.size == 0 or (x.min() >= low and x.max() <= high):
        return None
    flat = x.reshape(len(x), -1)
    # The condition is negated so that NaN counts as outside.
    bad = ~((flat >= low) & (flat <= high))
    row = int(np.argmax(bad.any(axis=1)))
    return row, float(flat[row][np.argmax(bad[row])])


def first_not_finite(x: np.ndarray) -> int | None:
    """Returns the index of the first row of x [N, ...] that holds NaN or an infinity, or None."""
    if x.dtype.kind != "f" or np.isfinite(x.sum(dtype=np.float64)):
        return None
    bad = ~np.isfinite(x.reshape(len(x), -1)).all(axis=1)
    return int(np.argmax(bad)) if bad.any() else None
