"""Converts a user's arrays to the columns of a split: numbers, masks and categories.

Values are numpy arrays, or anything that numpy can read: JAX arrays, lists, and the columns of
pandas and polars frames. Floats become f32. Missing values, which are NaN, None, pandas' NA or
masked in a `numpy.ma` array, are allowed in x alone, whose mask is 0 there. Text is allowed in y,
context and groups, where each different word is a category.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.events import are_pictures, channels_first


class Names(NamedTuple):
    """The names of those columns of a table that become x, y, context, weights and groups."""

    columns: tuple[str, ...]  # the columns that become x
    y: str | None = None
    context: tuple[str, ...] = ()
    weights: str | None = None
    groups: str | None = None


class Examples(NamedTuple):
    """The examples of one data set or split, with their labels, context, weights and groups."""

    x: Any  # the inputs, [N, *event]
    y: Any = None  # classes or other numbers, [N, ...], which evaluations use but training does not
    # [N], [N, C] or a mapping of such: integers and text are classes, floats are covariates.
    context: Any = None
    weights: Any = None  # [N], factors of each example's loss
    groups: Any = None  # [N], group labels; all examples of a group go to the same split
    names: Names | None = None  # the columns' names, for error messages, if this is a table

    def word(self, role: str) -> str:
        """Returns how an error message names one of the fields, such as "weights 'w'"."""
        name = getattr(self.names, role, None)
        return role if name is None else f"{role} {name!r}"


def columns_of(given: Examples, channels: str) -> dict[str, np.ndarray]:
    """Converts examples to arrays by name: x, and any of mask, y, weight and group.

    The classes of y may still be text, and the context is not among the columns.
    """
    x = values_of("x", given.x, missing=True)
    missing = np.ma.getmaskarray(x) if isinstance(x, np.ma.MaskedArray) else None
    x = np.asarray(x.filled(0) if isinstance(x, np.ma.MaskedArray) else x)
    if x.ndim < 2:
        raise UserError(f"x has shape {x.shape}, but needs two axes or more: give [examples, ...]")
    x = channels_last(x, channels)
    columns = {"x": x}
    if missing is not None and missing.any():
        if missing.all():
            raise UserError("every value of x is missing (NaN or masked): give some that are known")
        columns["mask"] = 1 - channels_last(missing.astype(np.uint8), channels)
    if given.y is not None:
        y = np.asarray(values_of(given.word("y"), given.y, text=True))
        columns["y"] = y.astype(np.int32) if y.dtype == bool else y
    if given.weights is not None:
        columns["weight"] = _weights(given.word("weights"), given.weights)
    if given.groups is not None:
        group = values_of(given.word("groups"), given.groups, text=True)
        columns["group"] = np.unique(group, return_inverse=True)[1]
    for name, column in columns.items():
        if len(column) != len(x):
            raise UserError(
                f"x has {len(x)} examples, but {name} has {len(column)}: give one row of {name} "
                "for each row of x"
            )
    return columns


def values_of(name: str, values: Any, missing: bool = False, text: bool = False) -> Any:
    """Converts a user's values to an array [N, ...], with floats as f32.

    The result is a masked array if some values are missing.

    Args:
      name: how an error message names the values.
      values: numbers, or text if `text` is True.
      missing: whether values may be missing.
      text: whether the values may be text, which is returned as it is.

    Raises:
      UserError: if the values are not numbers, one is infinite, or one is missing although
        `missing` is False; the message names the row.
    """
    array = _array_of(name, values)
    if array.dtype == object and array.ndim:
        absent = np.asarray([_absent(value) for value in array.ravel()], bool).reshape(array.shape)
        array = np.where(absent, np.nan, array)
        if text and all(isinstance(value, str) for value in array[~absent]):
            _check_complete(name, absent)
            array = array.astype(str)
        else:
            # pandas stores columns with missing values as objects.
            with contextlib.suppress(TypeError, ValueError):
                array = array.astype(np.float64)
    if text and array.dtype.kind == "U" and array.ndim == 1:
        return array
    floats = jnp.issubdtype(array.dtype, jnp.floating)  # unlike numpy's, this knows bfloat16
    if not (floats or array.dtype.kind in "iub") or array.ndim < 1:
        raise UserError(
            f"{name} has dtype {array.dtype} and shape {array.shape}: give an array of numbers "
            "[N, ...]; numpy.unique(names, return_inverse=True)[1] converts categories to integers"
        )
    if isinstance(array, np.ma.MaskedArray) and not missing:
        _check_complete(name, np.ma.getmaskarray(array))
        array = array.data
    if floats:
        array = array.astype(np.float32)
        bad = np.isnan(np.ma.getdata(array))
        if bad.any() and not missing:
            _check_complete(name, bad & ~np.ma.getmaskarray(array))
        elif bad.any():
            array = np.ma.MaskedArray(array, np.ma.getmaskarray(array) | bad)
    flat = np.asarray(np.ma.filled(array, 0)).reshape(len(array), -1)
    if floats and not np.isfinite(flat.sum(dtype=np.float64)):
        wrong = ~np.isfinite(flat).all(axis=1)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise UserError(f"row {row} of {name} holds an infinity: remove or repair that row")
    return array


def _array_of(name: str, values: Any) -> np.ndarray:
    """Converts values to an array, which stays masked if it is; raises UserError if it cannot."""
    if isinstance(values, Mapping):
        raise UserError(
            f"{name} is a mapping of {', '.join(map(str, values))}, not an array: give its arrays "
            "by name, as in ae.data.arrays(mapping['x'], y=mapping['y']), or use ae.data.table"
        )
    try:
        masked = isinstance(values, np.ma.MaskedArray)
        array = np.ma.asarray(values) if masked else np.asarray(values)
    except ValueError as error:  # numpy refuses lists of unequal lengths
        raise UserError(
            f"{name} is a {type(values).__name__} of parts of unequal shapes, not one array: give "
            "every example the same shape, or x and y as a tuple (x, y)"
        ) from error
    if array.ndim and not len(array):
        raise UserError(f"{name} has shape {array.shape}, no examples: give one or more")
    return array


def _check_complete(name: str, absent: np.ndarray) -> None:
    """Raises UserError if a value is missing; the message names its row."""
    rows = absent.reshape(len(absent), -1).any(axis=1)
    if rows.any():
        raise UserError(
            f"row {int(np.argmax(rows))} of {name} is missing (NaN, None or masked), which only "
            "x may be: remove that row or fill it in"
        )


def _absent(value: Any) -> bool:
    """Returns whether an entry of a frame is None, NaN or pandas' NA, without importing pandas."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and math.isnan(value)


def _weights(word: str, values: Any) -> np.ndarray:
    weights = np.asarray(values_of(word, values), np.float32)
    wanted = "give one number for each example, 0 or more, and not all 0"
    if weights.ndim != 1:
        raise UserError(f"{word} has shape {weights.shape}: {wanted}")
    if (weights < 0).any():
        row = int(np.argmax(weights < 0))
        raise UserError(f"row {row} of {word} is {weights[row]:g}: {wanted}")
    if not weights.any():
        raise UserError(f"{word} has no number above 0: {wanted}")
    return weights


def scale_of(x: np.ndarray, scale: float | None) -> float:
    """Returns the value of x that becomes 1.0.

    It is `scale`, if that is a number. If `scale` is None, it is 255 for what looks like pictures
    of bytes, and 1 for any other x; a message on stderr says so if x holds bytes.
    """
    if scale is not None or x.dtype != np.uint8 or not are_pictures(x.shape):
        if scale is None and x.dtype == np.uint8 and x.ndim == 4:
            tell(f"x holds bytes of shape {x.shape}, which stay integers: give scale=255 to divide")
        return 1.0 if scale is None else scale
    tell(
        f"x holds bytes of shape {x.shape}, which look like pictures, so they are divided by 255: "
        "give scale=1.0 to keep the integers"
    )
    return 255.0


def tell(message: str) -> None:
    """Prints a message on stderr."""
    print(message, file=sys.stderr)


def channels_last(x: np.ndarray, channels: str) -> np.ndarray:
    """Moves the channels of pictures [N, ...] to the last axis if channels is "first".

    Raises:
      UserError: if x looks like pictures whose channels are first although `channels` is "last", or
        last although it is "first".
    """
    if channels not in ("first", "last"):
        raise UserError(f"channels is {channels!r}: give 'first' or 'last'")
    if channels == "first":
        if x.ndim == 4 and channels_first((x.shape[0], x.shape[3], *x.shape[1:3])):
            raise UserError(
                f"x has shape {x.shape}, which looks like pictures with the {x.shape[3]} channels "
                'last: leave out channels="first"'
            )
        return np.moveaxis(x, 1, -1)
    if channels_first(x.shape):
        raise UserError(
            f"x has shape {x.shape}, which looks like pictures with the {x.shape[1]} channels "
            'first: give channels="first", which makes them [N, H, W, C]'
        )
    return x


def categories(name: str, values: np.ndarray, classes: int | tuple[str, ...]) -> np.ndarray:
    """Returns the index of each value's class, i32[N].

    Args:
      name: how an error message names the values.
      values: integers or text, [N].
      classes: the number of classes, if the values are integers; or the classes' names.

    Raises:
      UserError: if a value is none of the classes; the message names its row.
    """
    if isinstance(classes, int):
        found = values.astype(np.int64) if values.dtype.kind in "iub" else np.full(len(values), -1)
        unknown = (found < 0) | (found >= classes)
        known = f"integers from 0 to {classes - 1}"
    else:
        place = np.minimum(np.searchsorted(classes, values.astype(str)), len(classes) - 1)
        found, unknown = place, np.asarray(classes)[place] != values.astype(str)
        known = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    if unknown.any():
        row = int(np.argmax(unknown))
        raise UserError(
            f"row {row} of {name} is {values[row]}, which is none of the classes of train "
            f"({known}): remove that row, or give its class to train too"
        )
    return found.astype(np.int32)


def classes_of(name: str, values: list[np.ndarray]) -> int | tuple[str, ...] | None:
    """Returns the number of the classes (integers) or their names (text) among values.

    It returns None if the values are floats or have two axes, and so are covariates.

    Args:
      name: how an error message names the values.
      values: the values of each split, [N] or [N, C].

    Raises:
      UserError: if an integer is negative, or too large for one-hot columns.
    """
    if values[0].ndim != 1:
        return None
    if values[0].dtype.kind == "U":
        return tuple(np.unique(np.concatenate(values)).tolist())
    if values[0].dtype.kind not in "iub":
        return None
    least, most = (
        min(int(v.min(initial=0)) for v in values),
        max(int(v.max(initial=0)) for v in values),
    )
    if least < 0:
        raise UserError(
            f"{name} holds the class {least}: number the classes from 0, or give floats if these "
            "are magnitudes"
        )
    if most >= 10_000:
        raise UserError(
            f"{name} holds the class {most}, too large for one-hot columns: number the classes "
            "from 0 without gaps, as numpy.unique(values, return_inverse=True)[1] does, or give "
            "floats if these are magnitudes"
        )
    return most + 1


def named_values(context: Any) -> dict[str | None, np.ndarray]:
    """Returns the arrays of a context by name; an array without a name has the name None."""
    if context is None:
        return {}
    parts = context if isinstance(context, Mapping) else {None: context}
    words = {name: "context" if name is None else f"context {name!r}" for name in parts}
    return {name: np.asarray(values_of(words[name], v, text=True)) for name, v in parts.items()}
