"""The record of how the examples of a training split became numbers, to convert new ones alike.

`aejax.data.rows(new, like=train)` and `aejax.data.context(values, like=train)` use it: a class gets
the one-hot column that it has in train, a missing value the mean over train, and weights are
divided by the same number as in train, whatever other new rows there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from aejax.data.columns import (
    Examples,
    Names,
    categories,
    classes_of,
    columns_of,
    named_values,
    scale_of,
    tell,
)
from aejax.errors import UserError

MANY = 20  # more classes than this, or covariates above it, are named in a message


class Part(NamedTuple):
    """One array of the context."""

    name: str | None  # its name in the mapping that was given; None: the context is one array
    classes: int | tuple[str, ...] | None  # the number or names of its classes; None: a covariate
    width: int  # how many columns of the context it has

    @property
    def word(self) -> str:
        """How a message names this array: "context", or "context 'site'"."""
        return "context" if self.name is None else f"context {self.name!r}"

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Converts this array of N examples to columns f32[N, width] of the context.

        Classes become one-hot, and covariates stay unchanged.
        """
        if self.classes is not None:
            return np.eye(self.width, dtype=np.float32)[categories(self.word, values, self.classes)]
        flat = values.reshape((len(values), -1)) if values.dtype.kind != "U" else None
        if flat is None or flat.shape[1] != self.width:
            raise UserError(
                f"{self.word} has shape {values.shape} and dtype {values.dtype}, but in train it "
                f"has {self.width} covariates: give numbers [N, {self.width}]"
            )
        return flat.astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Form:
    """How the examples of a training split became numbers: classes, scales and means of train."""

    event: tuple[int, ...]  # the shape of one example's x
    integers: bool  # whether x holds integers
    channels: str  # "first" or "last", where pictures had their channels when they were given
    scale: float  # the stored value that becomes 1.0
    names: Names | None  # the names of the table's columns; None: arrays were given
    parts: tuple[Part, ...] | None  # the arrays of the context; None: there is no context
    labels: tuple[str, ...]  # the names of the classes of y, if they are text
    fill: np.ndarray | None = None  # f32[*event], the mean of each element over train; None: 0
    weight: float = 1.0  # the mean of the weights over train
    texts: Any = None  # how texts became token ids (`data.text.tokens.Coder`); None: x is numbers

    def encode(self, columns: dict[str, np.ndarray], given: Examples) -> None:
        """Adds the array "context" to the columns of some examples, in place.

        If the classes of y have names, it also replaces them by their indices, i32[N].
        """
        if self.labels and "y" in columns:
            columns["y"] = categories(given.word("y"), columns["y"], self.labels)
        if self.parts is None:
            if given.context is not None:
                raise UserError("a context is given, but train has none: leave it out")
            return
        columns["context"] = self.context(given.context)
        if len(columns["context"]) != len(columns["x"]):
            raise UserError(
                f"x has {len(columns['x'])} examples, but context has {len(columns['context'])}: "
                "give one row of context for each row of x"
            )

    def context(self, given: Any) -> np.ndarray:
        """Converts a user's context of N examples to f32[N, C], with its arrays in train's order.

        Raises:
          UserError: if an array is absent or unknown, if the arrays differ in length, or if a value
            is none of the classes of train.
        """
        parts = self.parts or ()
        wanted = [part.name for part in parts]
        found = named_values(given)
        if set(found) != set(wanted):
            have = ", ".join(map(str, found)) or "none"
            need = ", ".join(map(str, wanted))
            raise UserError(
                f"the context has the arrays {have}, but train has {need}: give these"
                if wanted != [None]
                else "the context must be one array of values, as in train: give it without names"
            )
        lengths = {len(values) for values in found.values()}
        if len(lengths) > 1:
            raise UserError(
                f"the arrays of the context have {sorted(lengths)} rows: give each the same number"
            )
        return np.concatenate([part.encode(found[part.name]) for part in parts], axis=1)

    def finished(self, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns columns whose missing values are filled in, and whose weights are scaled."""
        columns = dict(columns)
        if self.fill is not None and "mask" in columns:
            columns["x"] = np.where(columns["mask"] == 1, columns["x"], self.fill)
        if "weight" in columns:
            columns["weight"] = columns["weight"] / np.float32(self.weight)
        return columns

    def fitted(self, train: dict[str, np.ndarray]) -> Form:
        """Returns this record with the means of x and of the weights over train filled in."""
        x, fill = train["x"], None
        if x.dtype == np.float32:
            seen = train.get("mask", np.ones((1,) * x.ndim, np.uint8))
            count = np.broadcast_to(seen, x.shape).sum(0, dtype=np.float64)
            fill = (x * seen).sum(0, dtype=np.float64) / np.maximum(count, 1)
            fill = fill.astype(np.float32)
        weight = float(train["weight"].mean()) if "weight" in train else 1.0
        return dataclasses.replace(self, fill=fill, weight=weight)


def formed(
    given: Sequence[Examples], channels: str, scale: float | None
) -> tuple[Form, list[dict[str, np.ndarray]]]:
    """Returns how a user's data becomes numbers, and the arrays of each of its splits by name.

    Args:
      given: the examples of each split; a class has the same index in all splits.
      channels: "first" or "last".
      scale: the stored value that becomes 1.0; None: 255 for pictures of bytes, else 1.
    """
    columns = [columns_of(one, channels) for one in given]
    x = columns[0]["x"]
    scale = scale_of(x, scale)
    # Either all splits get a mask or none does, so that their batches have the same structure.
    if any("mask" in one for one in columns):
        for one in columns:
            one.setdefault("mask", np.ones(one["x"].shape, np.uint8))
    parts = None if given[0].context is None else _parts([one.context for one in given])
    text = [one["y"] for one in columns if "y" in one and one["y"].dtype.kind == "U"]
    labels = tuple(np.unique(np.concatenate(text)).tolist()) if text else ()
    integers = x.dtype.kind in "iub"
    form = Form(x.shape[1:], integers, channels, scale, given[0].names, parts, labels)
    for one, examples in zip(columns, given, strict=True):
        form.encode(one, examples)
    return form, columns


def _parts(contexts: list[Any]) -> tuple[Part, ...]:
    """Returns a `Part` for each array of the context, from the contexts of all splits.

    A message on stderr names an array that looks wrong, such as integers with very many values.
    """
    found = [named_values(context) for context in contexts]
    parts = []
    for name, first in found[0].items():
        values = [one[name] for one in found if name in one]
        part = Part(name, None, 0)
        classes = classes_of(part.word, values)
        width = classes if isinstance(classes, int) else len(classes or first[:1].ravel())
        part = part._replace(classes=classes, width=width)
        largest = 0.0 if classes else max(float(np.abs(v).max(initial=0)) for v in values)
        if isinstance(classes, int) and classes > MANY:
            tell(
                f"the integers of {part.word} are classes from 0 to {classes - 1} and become "
                f"{classes} columns: give floats if they are magnitudes"
            )
        if largest > MANY:
            tell(
                f"{part.word} holds numbers up to {largest:.4g}, but a net learns best from values "
                "near 1: give (values - mean) / std"
            )
        parts.append(part)
    return tuple(parts)
