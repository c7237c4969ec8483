"""Split: one part of a data set, train, validation or test, and what it is made of."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from aejax.data.reading import Reader, gather
from aejax.errors import UserError
from aejax.types import Batch, Key

# The noise of an evaluation that is given no key: fixed, so that its figures are.
EVALUATION_SEED = 20_131_220
FACTOR = "label_"  # how the names of columns that hold known factors begin


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set.

    `arrays` holds all examples where they fit memory: for images `image` u8[N, H, W, C] and
    perhaps `label` i32[N], or `label_*` of several known factors; for a user's own arrays `x`
    f32[N, *event] and perhaps `y`. Where they do not fit `reader` gives one example at a time and
    `arrays` holds the labels alone.
    """

    name: str  # of the data set and the part: "mnist/train"
    arrays: Mapping[str, np.ndarray]  # leaves [N, ...]
    prepare: Callable[[Key, Any], Batch]  # arrays of one batch -> Batch, pure and hashable
    fingerprint: str  # sha256 over the content, whatever the files it came in
    binarised: str = "none"  # "dynamic", "static" or "none": names the figures nll or bce
    binarise_seed: int | None = None  # of the draws that were made once, None where none were
    classes: tuple[str, ...] = ()  # names of the labels, where they have any
    origin: str = ""  # where the files came from and whether that was verified
    reader: Reader | None = None

    def __len__(self) -> int:
        if self.reader is not None:
            return len(self.reader)
        return len(next(iter(self.arrays.values())))

    @functools.cached_property
    def event(self) -> tuple[int, ...]:
        """The shape of one x, without the batch."""
        first = self.rows(np.zeros(1, np.int32))
        prepared = jax.eval_shape(self.prepare, jax.random.key(0), first)
        return prepared.x.shape[1:]

    @functools.cached_property
    def labels(self) -> np.ndarray | None:
        """The classes i32[N], or None where there are none."""
        column = self.arrays.get("label", self.arrays.get("y"))
        if column is None or column.ndim != 1 or column.dtype.kind not in "iub":
            return None
        return column.astype(np.int32)

    @functools.cached_property
    def factors(self) -> dict[str, np.ndarray]:
        """The known factors of variation by name, i32[N] each; empty where there are none."""
        columns = self.arrays.items()
        return {k.removeprefix(FACTOR): column for k, column in columns if k.startswith(FACTOR)}

    @functools.cached_property
    def extent(self) -> tuple[float, float]:
        """The smallest and the largest value of all targets, looked up once; NaN if any is."""
        low, high = np.inf, -np.inf
        for batch in self.batches(4096):
            target = np.asarray(batch.target)
            low, high = np.minimum(low, target.min()), np.maximum(high, target.max())
        return float(low), float(high)

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Stored examples by their number.

        Args:
          indices: i32[...], each from 0 to N - 1.

        Returns:
          Arrays as they are stored, leaves [..., *event].
        """
        if self.reader is None:
            return {name: array[indices] for name, array in self.arrays.items()}
        return gather(self.reader, np.asarray(indices))

    def batches(self, size: int, key: Key | None = None) -> Iterator[Batch]:
        """All examples once, in order, for evaluation.

        Args:
          size: examples a batch; the last one may be smaller.
          key: Key[], of the draws; by default a fixed one, so that figures are fixed.

        Yields:
          Batch with leaves [B, ...]; the noise of batch i comes from fold_in(key, i).
        """
        if size < 1:
            raise UserError(f"{self.name}: a batch of {size} examples; give 1 or more")
        key = jax.random.key(EVALUATION_SEED, impl="threefry2x32") if key is None else key
        for i, start in enumerate(range(0, len(self), size)):
            indices = np.arange(start, min(start + size, len(self)), dtype=np.int32)
            yield self.prepare(jax.random.fold_in(key, i), self.rows(indices))

    def take(self, n: int) -> Split:
        """The first n examples as a Split of its own (all, where there are no more)."""
        if n < 1:
            raise UserError(f"{self.name}: the first {n} examples; take 1 or more")
        if n >= len(self):
            return self
        arrays = self.rows(np.arange(n, dtype=np.int32))
        return dataclasses.replace(
            self, arrays=arrays, fingerprint=fingerprint(arrays), reader=None
        )

    def provenance(self) -> dict[str, Any]:
        """What environment.json says of the data, as plain values."""
        return {
            "name": self.name,
            "examples": len(self),
            "event": list(self.event),
            "origin": self.origin,
            "sha256": self.fingerprint,
            "binarised": self.binarised,
            "binarise_seed": self.binarise_seed,
        }


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """The sha256 over names, dtypes, shapes and values of arrays, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        # Little-endian on every machine, so that equal contents have equal hashes.
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


def check_support(split: Split, support: tuple[float, float], rows: int = 4096) -> None:
    """Refuses targets that a likelihood cannot explain, as a Bernoulli those outside [0, 1].

    Data that is read from a disk while training is not looked through.

    Args:
      split: to be trained on.
      support: smallest and largest value that the likelihood explains.
      rows: how many examples to look at together.

    Raises:
      UserError: names the first row outside, and its value.
    """
    if split.reader is not None:
        return
    start, (low, high) = 0, support
    if low <= split.extent[0] and split.extent[1] <= high:
        return
    for batch in split.batches(rows):
        outside = first_outside(np.asarray(batch.target), low, high)
        if outside is not None:
            row, value = outside
            raise UserError(
                f"{split.name}: example {start + row} holds {value:g}, outside [{low:g}, {high:g}],"
                " which the likelihood cannot explain: rescale the data or take another likelihood"
            )
        start += rows


def first_outside(x: np.ndarray, low: float = 0.0, high: float = 1.0) -> tuple[int, float] | None:
    """The first row of x [N, ...] that leaves [low, high] and the value that does, or None."""
    if x.size == 0 or (x.min() >= low and x.max() <= high):
        return None
    flat = x.reshape(len(x), -1)
    # Written so that NaN counts as outside.
    bad = ~((flat >= low) & (flat <= high))
    row = int(np.argmax(bad.any(axis=1)))
    return row, float(flat[row][np.argmax(bad[row])])


def first_not_finite(x: np.ndarray) -> int | None:
    """The first row of x [N, ...] that holds NaN or an infinity, or None."""
    if x.dtype.kind != "f" or np.isfinite(x.sum(dtype=np.float64)):
        return None
    bad = ~np.isfinite(x.reshape(len(x), -1)).all(axis=1)
    return int(np.argmax(bad)) if bad.any() else None
