"""Converts a user's arrays to the columns of a split: numbers, masks, one-hot classes, channels.

Values are numpy arrays, or anything that numpy can read: JAX arrays, lists, and the columns of
pandas and polars frames. Floats become f32. Missing values, which are NaN, None, pandas' NA or
masked in a `numpy.ma` array, are allowed in x alone, whose mask is 0 there.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError

PICTURE_CHANNELS = (1, 3, 4)


class Examples(NamedTuple):
    """The examples of one data set or split, with their labels, context, weights and groups."""

    x: Any  # the inputs, [N, *event]
    y: Any = None  # classes or other numbers, [N, ...], which evaluations use but training does not
    context: Any = None  # [N], [N, C] or a mapping of such: integers are classes, floats covariates
    weights: Any = None  # [N], factors of each example's loss
    groups: Any = None  # [N], group labels; all examples of a group go to the same split


def stored(
    given: Sequence[Examples], channels: str, scale: float | None
) -> tuple[list[dict[str, np.ndarray]], dict[str, Any]]:
    """Returns the columns to store for each split, and the fields of the splits' `Prepare`."""
    parts = [_columns(one, channels) for one in given]
    x = parts[0]["x"]
    if scale is None:
        scale = 1.0
        if x.dtype == np.uint8 and _are_pictures(x.shape):
            scale = 255.0
            print(
                f"x holds bytes of shape {x.shape}, which look like pictures, so they are divided "
                "by 255: give scale=1.0 to keep the integers",
                file=sys.stderr,
            )
    # Either all splits get a mask or none does, so that their batches have the same structure.
    if any("mask" in columns for columns in parts):
        for columns in parts:
            columns.setdefault("mask", np.ones(columns["x"].shape, np.uint8))
    names = list(given[0].context) if isinstance(given[0].context, Mapping) else None
    if given[0].context is not None:
        for columns, context in zip(parts, _contexts(given, names), strict=True):
            columns["context"] = context
    for columns in parts:
        _check_lengths(columns)
    options = {
        "scale": scale,
        "integers": scale == 1.0 and x.dtype.kind in "iu",
        "context": "context" if "context" in parts[0] else None,
        "mask": "mask" if "mask" in parts[0] else None,
        "weight": "weight" if "weight" in parts[0] else None,
    }
    return parts, options


def _columns(given: Examples, channels: str) -> dict[str, np.ndarray]:
    x = values_of("x", given.x, missing=True)
    missing = np.ma.getmaskarray(x) if isinstance(x, np.ma.MaskedArray) else None
    x = np.asarray(x.filled(0) if isinstance(x, np.ma.MaskedArray) else x)
    if x.ndim < 2:
        raise UserError(f"x has shape {x.shape}, but needs two axes or more: give [examples, ...]")
    x = _channels_last(x, channels)
    columns = {"x": x}
    if missing is not None and missing.any():
        columns["mask"] = 1 - _channels_last(missing.astype(np.uint8), channels)
    if given.y is not None:
        columns["y"] = np.asarray(values_of("y", given.y))
    if given.weights is not None:
        weights = np.asarray(values_of("weights", given.weights), np.float32)
        if weights.ndim != 1 or (weights < 0).any() or not weights.any():
            raise UserError(
                f"the weights have shape {weights.shape} and begin at {weights.min():g}: give one "
                "number for each example, 0 or more, and not all 0"
            )
        columns["weight"] = weights
    if given.groups is not None:
        columns["group"] = np.unique(np.asarray(given.groups), return_inverse=True)[1]
    return columns


def _channels_last(x: np.ndarray, channels: str) -> np.ndarray:
    """Moves the channels of pictures to the last axis if channels is "first".

    Raises:
      UserError: if channels is "last" but x looks like pictures whose channels come first.
    """
    if channels == "first":
        return np.moveaxis(x, 1, -1)
    if x.ndim == 4 and x.shape[1] in PICTURE_CHANNELS and x.shape[3] not in PICTURE_CHANNELS:
        raise UserError(
            f"x has shape {x.shape}, which looks like pictures with the {x.shape[1]} channels "
            'first: give channels="first", which turns them to [N, H, W, C]'
        )
    return x


def _are_pictures(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 or (len(shape) == 4 and shape[3] in PICTURE_CHANNELS)


def _contexts(given: Sequence[Examples], names: list[str] | None) -> list[np.ndarray]:
    """Returns the context of each split, f32[N, C]: classes one-hot, and covariates unchanged."""
    found: list[list[np.ndarray]] = [[] for _ in given]
    for name in names or [None]:
        of = [one.context if name is None else one.context[name] for one in given]
        word = "context" if name is None else f"context {name!r}"
        values = [np.asarray(values_of(word, one)) for one in of]
        if values[0].ndim == 1 and values[0].dtype.kind in "iub":
            classes = 1 + max(int(one.max(initial=0)) for one in values)
            least = min(int(one.min(initial=0)) for one in values)
            if least < 0 or classes > 10_000:
                raise UserError(
                    f"{word} has classes from {least} to {classes - 1}: give classes from 0 on, or "
                    "floats if these are magnitudes"
                )
            values = [np.eye(classes, dtype=np.float32)[one.astype(np.int64)] for one in values]
        for part, one in zip(found, values, strict=True):
            part.append(one.reshape((len(one), -1)).astype(np.float32))
    return [np.concatenate(part, axis=1) for part in found]


def _check_lengths(columns: Mapping[str, np.ndarray]) -> None:
    for name, column in columns.items():
        if len(column) != len(columns["x"]):
            raise UserError(
                f"x has {len(columns['x'])} examples, but {name} has {len(column)}: give one row "
                f"of {name} for each row of x"
            )


def _absent(value: Any) -> bool:
    """Returns whether an entry of a frame is None or pandas' NA, without importing pandas."""
    return value is None or type(value).__name__ == "NAType"


def values_of(name: str, values: Any, missing: bool = False) -> Any:
    """Returns values as an array [N, ...], floats as f32; a masked array if some are missing.

    Raises:
      UserError: if the values are not numbers, one is infinite, or one is missing although
        `missing` is False.
    """
    array = np.ma.asarray(values) if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
    if array.dtype == object:
        try:  # pandas stores columns with missing values as objects.
            array = np.asarray([np.nan if _absent(v) else v for v in array.ravel()], np.float64)
            array = array.reshape(np.shape(values))
        except (TypeError, ValueError):
            pass
    floats = jnp.issubdtype(array.dtype, jnp.floating)  # unlike numpy's, this knows bfloat16
    if not (floats or array.dtype.kind in "iub") or array.ndim < 1:
        raise UserError(
            f"{name} has dtype {array.dtype} and shape {array.shape}: give an array of numbers "
            "[N, ...]; numpy.unique(names, return_inverse=True)[1] converts categories to integers"
        )
    if floats:
        array = array.astype(np.float32)
        bad = np.isnan(np.ma.getdata(array))
        if missing and bad.any():
            array = np.ma.MaskedArray(array, np.ma.getmaskarray(array) | bad)
    flat = np.asarray(np.ma.filled(array, 0)).reshape(len(array), -1)
    if floats and not np.isfinite(flat.sum(dtype=np.float64)):
        wrong = ~np.isfinite(flat).all(axis=1)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise UserError(
                f"row {row} of {name} holds an infinity{'' if missing else ' or NaN'}: remove or "
                "repair that row"
            )
    if not missing and isinstance(array, np.ma.MaskedArray):
        if array.mask.any():
            raise UserError(f"{name} has masked values, which only x may have: fill them first")
        array = array.data
    return array
