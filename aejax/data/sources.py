"""Makes splits of random-access data sets of other libraries, such as grain or PyTorch.

    train, validation, test = source(dataset, validation=0.1, test=held_out)

A data set is any object with `__len__` and `__getitem__`. An example is an array, a tuple (x, y) or
a mapping of arrays by name. Batches are read in a background thread before training needs them, and
batch t is the same function of (seed, t) as for arrays. If the data set has PyTorch's batched
`__getitems__(indices)`, each call reads a batch, which is much faster than reading single examples.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from aejax.data.columns import channels_last, scale_of
from aejax.data.order import permutation
from aejax.data.reading import stacked
from aejax.data.split import Split, fingerprint
from aejax.data.splitting import PARTS, Splits, count_of
from aejax.data.to_batch import Prepare
from aejax.errors import UserError

ENDLESS = 2**31 - 1  # indices of examples are i32


@dataclasses.dataclass(frozen=True, eq=False)
class Items:
    """A `Reader` of some of the examples of a data set that another library defines."""

    dataset: Any
    rows: np.ndarray  # i64[N], the indices of the examples in the data set
    field: str  # the name of the array that becomes x
    channels: str  # "first" or "last": where its channels are

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        example = named(self.dataset[int(self.rows[index])])
        return {
            name: column[0]
            for name, column in self._turned(
                {name: value[None] for name, value in example.items()}
            ).items()
        }

    @property
    def batched(self) -> bool:
        """Whether the data set can read several examples in one call."""
        return hasattr(self.dataset, "__getitems__")

    def many(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Reads the examples with the given indices, i[n], in one call; leaves [n, *event]."""
        examples = self.dataset.__getitems__(self.rows[indices].tolist())
        if isinstance(examples, Mapping) or (
            isinstance(examples, tuple) and len(examples[0]) == len(indices)
        ):
            return self._turned(named(examples))
        if hasattr(examples, "shape"):
            return self._turned({"x": np.asarray(examples)})
        each = [named(example) for example in examples]
        return self._turned({n: stacked(n, [one.get(n) for one in each]) for n in each[0]})

    def _turned(self, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the arrays [n, ...] of examples by name, with the channels of x as last axis."""
        if self.field not in columns:
            return columns
        return {**columns, self.field: channels_last(columns[self.field], self.channels)}


def source(
    train: Any,
    validation: Any = None,
    test: Any = None,
    *,
    field: str = "x",
    scale: float | None = None,
    channels: Literal["first", "last"] = "last",
    seed: int = 0,
) -> Splits:
    """Returns splits of random-access data sets, whose examples are read during training.

    Args:
      train: a data set with `__len__` and `__getitem__`.
      validation: another data set; or a share (below 1) or number of examples to take from train at
        random; or None for no such split.
      test: another data set; or a share or number of examples to take from train; or None.
      field: the name of the array that becomes x, where an example is a mapping.
      scale: the stored value that becomes 1.0; None: 255 for pictures of bytes, else 1.
      channels: "first" transposes pictures [C, H, W] to [H, W, C].
      seed: the seed with which shares are taken from train.

    Returns:
      The train, validation and test split. Validation and test have no examples if None, or 0, was
      given. Labels are not read in advance, so `split.labels` is None. The fingerprint is a hash of
      only the number of examples, the first example and the last.

    Raises:
      UserError: if a data set has no length or no access by index, if its examples have no array
        `field`, or if validation and test leave no example for train.
    """
    examples = len(_checked("train", train))
    order, taken = permutation(examples, seed, 0), 0
    parts: dict[str, Items] = {}
    for part, given in (("test", test), ("validation", validation)):
        if isinstance(given, int | float):
            count = count_of(part, given, examples)
            if count:
                kept = np.sort(order[taken : taken + count])
                parts[part] = Items(train, kept, field, channels)
            taken += count
        elif given is not None:
            parts[part] = Items(_checked(part, given), np.arange(len(given)), field, channels)
    if taken >= examples:
        raise UserError(
            f"the data set has {examples} examples, too few to give {taken} to validation and test "
            "and the rest to train: give smaller shares"
        )
    rows = np.sort(order[taken:]) if taken else np.arange(examples)
    parts["train"] = Items(train, rows, field, channels)
    first = parts["train"][0]
    if field in first:
        scale = scale_of(first[field][None], scale)
    made = {part: _split(part, items, field, scale) for part, items in parts.items()}
    none = {name: np.zeros((0, *value.shape), value.dtype) for name, value in first.items()}
    for part in PARTS:
        if part not in made:
            made[part] = dataclasses.replace(
                made["train"],
                name=f"source/{part}",
                arrays=none,
                fingerprint=fingerprint(none),
                reader=None,
            )
    return made["train"], made["validation"], made["test"]


def _split(part: str, items: Items, field: str, scale: float | None) -> Split:
    first, last = items[0], items[len(items) - 1]
    if field not in first:
        raise UserError(
            f"the examples of {part} have the arrays of numbers {sorted(first)}, but no {field!r}: "
            "give the name of the one that becomes x as field"
        )
    digest = hashlib.sha256(f"{len(items)}".encode())
    for example in (first, last):
        for name in sorted(example):
            digest.update(np.ascontiguousarray(example[name]).tobytes())
    return Split(
        name=f"source/{part}",
        arrays={},
        prepare=Prepare(field=field, scale=1.0 if scale is None else scale),
        fingerprint=digest.hexdigest(),
        origin=f"{type(items.dataset).__module__}.{type(items.dataset).__qualname__}",
        reader=items,
    )


def _checked(part: str, dataset: Any) -> Any:
    if isinstance(dataset, Mapping):
        raise UserError(
            f"{part} is a mapping of {', '.join(map(str, dataset))}, not a data set of examples: "
            "give its arrays to ae.data.arrays or ae.data.splits"
        )
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise UserError(
            f"{part} is a {type(dataset).__name__}, which has no length or no access by index: "
            "give a data set with __len__ and __getitem__, or use data.Stream for an iterator"
        )
    if len(dataset) > ENDLESS:
        raise UserError(
            f"{part} has {len(dataset)} examples, as a data set that repeats itself: give it "
            "without repeating, because ae.data.Batches goes through it again and again"
        )
    return dataset


def named(example: Any) -> dict[str, np.ndarray]:
    """Returns the arrays of an example by name; those of a tuple are named x, y, extra_0, ...

    Text and other values that are not numbers are left out, because training cannot read them.
    """
    if isinstance(example, Sequence) and not isinstance(example, str):
        names = ("x", "y", *(f"extra_{i}" for i in range(len(example) - 2)))
        example = dict(zip(names, example, strict=False))
    arrays = example.items() if isinstance(example, Mapping) else [("x", example)]
    found = {name: np.asarray(value) for name, value in arrays}
    return {name: value for name, value in found.items() if _numeric(value)}


def _numeric(array: np.ndarray) -> bool:
    return array.dtype.kind in "iub" or bool(jnp.issubdtype(array.dtype, jnp.floating))
