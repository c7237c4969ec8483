"""A user's own data as splits: arrays, given splits, and the columns of a table.

    train, validation, test = arrays(x, y)                      # divided at random
    train, validation, test = arrays(x, order="time", test=24)  # the last 24 rows are the test
    train, _, test = splits(x_train, test=(x_test, y_test))     # as given
    train, validation, test = table(frame, ["age", "dose"], context=["site"], groups="patient")

Missing values, which are NaN or masked in a `numpy.ma` array, get mask 0: they do not contribute to
the likelihood, and the encoder sees the mean over train in their place (0 among integers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np

from aejax.data.split import Split, first_outside
from aejax.data.splitting import Binarise, divide, splits_of
from aejax.errors import UserError

Given: TypeAlias = tuple[Split, Split | None, Split | None]  # train, validation, test
PICTURE_CHANNELS = (1, 3, 4)


class Examples(NamedTuple):
    """The examples of one data set or split, with their labels, context, weights and groups."""

    x: Any  # [N, *event]
    y: Any = None  # classes or other numbers, [N, ...], which evaluations use but training does not
    context: Any = None  # [N], [N, C] or a mapping of such: integers are classes, floats covariates
    weights: Any = None  # [N], factors of each example's loss
    groups: Any = None  # [N], group labels; all examples of a group go to the same split


def arrays(
    x: Any,
    y: Any = None,
    *,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    binarise: Binarise = "none",
    context: Any = None,
    weights: Any = None,
    groups: Any = None,
    order: Literal["random", "time"] = "random",
    channels: Literal["first", "last"] = "last",
    scale: float | None = None,
) -> Given:
    """Divides a user's own arrays into train, validation and test.

    Args:
      x: the examples [N, *event]. Floats become f32, and integers stay integers, but uint8 pictures
        [N, H, W] or [N, H, W, 1, 3 or 4] are divided by 255. NaN and masked elements of a
        `numpy.ma` array are missing values.
      y: classes, or other numbers that belong to the examples, [N, ...]; or None.
      validation: the share (below 1) or the number of examples in the validation split; 0: none.
      test: the share (below 1) or the number of the examples in the test split; 0: none.
      seed: the seed of the random division.
      binarise: "dynamic", "static" or "none", as in `aejax.data.images`.
      context: the values on which encoder, decoder and prior are conditioned: [N] or [N, C], or a
        mapping of such arrays, which are concatenated. Integers [N] are classes and become one-hot.
      weights: f[N], 0 or more, by which the loss of each example is multiplied; they are scaled to
        a mean of 1 over train.
      groups: [N], a group label for each example; all examples of a group go to the same split.
      order: "random" divides at random; "time" takes the last rows as test, those before them as
        validation, and the first as train.
      channels: "first" transposes pictures [N, C, H, W] to [N, H, W, C].
      scale: the stored value that becomes 1.0; None: 255 for uint8 pictures, else 1.

    Returns:
      Three splits, of which validation and test are None if they were asked for 0 examples. Their
      rows keep the order of x.

    Raises:
      UserError: if x holds an infinity, has its channels first, or, when it is to be binarised,
        holds a value outside [0, 1]; if the arrays differ in length; or if a split would be empty.
    """
    columns, options = _stored([Examples(x, y, context, weights, groups)], channels, scale)
    sizes = {"validation": validation, "test": test}
    shares = {part: size for part, size in sizes.items() if size != 0}
    group = columns[0].pop("group", None)
    divided = divide(
        columns[0], "arrays", shares=shares, seed=seed, groups=group, ordered=order == "time"
    )
    parts = dict(zip(["train", *shares], divided, strict=True))
    return _made(parts, options, binarise)


def splits(
    train: Any,
    validation: Any = 0.1,
    test: Any = None,
    *,
    seed: int = 0,
    binarise: Binarise = "none",
    channels: Literal["first", "last"] = "last",
    scale: float | None = None,
) -> Given:
    """Returns splits of data that is already divided, such as a benchmark with its own test set.

    Args:
      train: x [N, *event], a tuple (x, y), or a mapping with x and any of y, context, weights and
        groups, in the forms that `arrays` accepts.
      validation: the same, None, or a share or number of examples to take from train at random.
      test: the same as train, or None.
      seed: the seed with which validation is taken from train.
      binarise: as in `arrays`, like `channels` and `scale`.

    Returns:
      Three splits, of which validation and test may be None.

    Raises:
      UserError: as in `arrays`, and if the splits have different columns or shapes.
    """
    share = validation if isinstance(validation, int | float) else 0
    own = None if isinstance(validation, int | float) else validation
    given = {"train": train, "validation": own, "test": test}
    given = {part: _examples(part, data) for part, data in given.items() if data is not None}
    columns, options = _stored(list(given.values()), channels, scale)
    parts = dict(zip(given, columns, strict=True))
    if share:
        shares, group = {"validation": share}, parts["train"].pop("group", None)
        rest = divide(parts["train"], "train", shares=shares, seed=seed, groups=group)
        parts |= dict(zip(["train", "validation"], rest, strict=True))
    for part in parts.values():
        part.pop("group", None)
    shapes = {part: {k: a.shape[1:] for k, a in column.items()} for part, column in parts.items()}
    for part, found in shapes.items():
        if found != shapes["train"]:
            raise UserError(
                f"{part} has the columns {found}, but train has {shapes['train']}: give each split "
                "the same arrays, of the same shapes"
            )
    return _made(parts, options, binarise)


def table(
    frame: Any,
    columns: Sequence[str],
    *,
    y: str | None = None,
    context: Sequence[str] = (),
    weights: str | None = None,
    groups: str | None = None,
    **options: Any,
) -> Given:
    """Divides the rows of a pandas or polars frame, or of a mapping of arrays, into three splits.

    The values stay in their units. To standardise them inside the model, give the mean and
    deviation of each column, `statistics(train)`, to `nets.Standardised` and
    `likelihoods.Standardised`.

    Args:
      frame: the table, of which frame["age"] returns the column "age", N values.
      columns: the names of the columns that make x, f32[N, columns].
      y: the name of the column of classes.
      context: the names of the columns on which the model is conditioned, as `context` of `arrays`.
      weights: the name of the column of weights.
      groups: the name of the column whose equal values stay in one split.
      **options: further arguments of `arrays`.

    Raises:
      UserError: if there is no column of a name, a column of x has no numbers, or as in `arrays`.
    """

    def column(name: str) -> Any:
        try:
            return frame[name]
        except (KeyError, ValueError, TypeError, LookupError) as error:
            known = ", ".join(map(str, getattr(frame, "columns", frame)))
            raise UserError(f"the table has no column {name!r}: choose from {known}") from error
        except Exception as error:  # polars has an error of its own
            raise UserError(f"the table has no column {name!r}: {error}") from error

    values = [_values(name, column(name), missing=True) for name in columns]
    x = np.ma.stack([np.ma.asarray(one).astype(np.float32) for one in values], axis=1)
    return arrays(
        x,
        None if y is None else column(y),
        context={name: column(name) for name in context} or None,
        weights=None if weights is None else column(weights),
        groups=None if groups is None else column(groups),
        **options,
    )


class Statistics(NamedTuple):
    """The mean and standard deviation of each element of x, in the shape of one example."""

    mean: Any  # nested tuples of numbers, which a Linen module may have as a field
    std: Any  # nested tuples of numbers; 1 where an element does not vary


def statistics(split: Split) -> Statistics:
    """Returns the mean and standard deviation of each element of x over a split, usually train.

    Missing values are left out.
    """
    count = total = square = 0.0
    for batch in split.batches(4096):
        x = np.asarray(batch.x, np.float64)
        seen = np.ones_like(x) if batch.mask is None else np.broadcast_to(batch.mask, x.shape)
        count, total = count + seen.sum(0), total + (x * seen).sum(0)
    mean = total / np.maximum(count, 1.0)
    for batch in split.batches(4096):
        x = np.asarray(batch.x, np.float64)
        seen = np.ones_like(x) if batch.mask is None else np.broadcast_to(batch.mask, x.shape)
        square = square + (np.square(x - mean) * seen).sum(0)
    std = np.sqrt(square / np.maximum(count, 1.0))
    return Statistics(_tuples(mean.tolist()), _tuples(np.where(std > 0, std, 1.0).tolist()))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _examples(part: str, data: Any) -> Examples:
    if isinstance(data, Mapping):
        unknown = sorted(set(data) - set(Examples._fields))
        if unknown or "x" not in data:
            raise UserError(
                f"{part} is a mapping of {sorted(data)}: give x and any of y, context, weights and "
                "groups, or name columns by table"
            )
        return Examples(**data)
    return Examples(*data) if isinstance(data, tuple) else Examples(data)


def _stored(
    given: Sequence[Examples], channels: str, scale: float | None
) -> tuple[list[dict[str, np.ndarray]], dict[str, Any]]:
    """Returns the columns to store for each split, and the fields of the splits' `Prepare`."""
    stored = [_columns(one, channels) for one in given]
    x = stored[0]["x"]
    if scale is None:
        scale = 255.0 if x.dtype == np.uint8 and _are_pictures(x.shape) else 1.0
    # Either all splits get a mask or none does, so that their batches have the same structure.
    if any("mask" in columns for columns in stored):
        for columns in stored:
            columns.setdefault("mask", np.ones(columns["x"].shape, np.uint8))
    names = [name for name in given[0].context] if isinstance(given[0].context, Mapping) else None
    if given[0].context is not None:
        for columns, context in zip(stored, _contexts(given, names), strict=True):
            columns["context"] = context
    for columns in stored:
        _check_lengths(columns)
    options = {
        "scale": scale,
        "integers": scale == 1.0 and x.dtype.kind in "iu",
        "context": "context" if "context" in stored[0] else None,
        "mask": "mask" if "mask" in stored[0] else None,
        "weight": "weight" if "weight" in stored[0] else None,
    }
    return stored, options


def _columns(given: Examples, channels: str) -> dict[str, np.ndarray]:
    x = _values("x", given.x, missing=True)
    missing = np.ma.getmaskarray(x) if isinstance(x, np.ma.MaskedArray) else None
    x = np.asarray(x.filled(0) if isinstance(x, np.ma.MaskedArray) else x)
    if x.ndim < 2:
        raise UserError(f"x has shape {x.shape}, but needs two axes or more: give [examples, ...]")
    x = _channels_last(x, channels)
    columns = {"x": x}
    if missing is not None and missing.any():
        columns["mask"] = 1 - _channels_last(missing.astype(np.uint8), channels)
    if given.y is not None:
        columns["y"] = np.asarray(_values("y", given.y))
    if given.weights is not None:
        weights = np.asarray(_values("weights", given.weights), np.float32)
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
        values = [np.asarray(_values(word, one)) for one in of]
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


def _made(
    parts: Mapping[str, dict[str, np.ndarray]], options: dict[str, Any], binarise: Binarise
) -> Given:
    if binarise != "none":
        options = {**options, "integers": False}
        for columns in parts.values():
            outside = first_outside(columns["x"], 0.0, options["scale"])
            if outside is not None:
                raise UserError(
                    f"row {outside[0]} of x holds {outside[1]:g}, which cannot be binarised "
                    f"because it is outside [0, {options['scale']:g}]: rescale x or give "
                    "binarise='none'"
                )
    if options["mask"] and parts["train"]["x"].dtype == np.float32:
        x, seen = parts["train"]["x"], parts["train"]["mask"]
        mean = (x * seen).sum(0, dtype=np.float64) / np.maximum(seen.sum(0, dtype=np.float64), 1)
        for columns in parts.values():
            columns["x"] = np.where(columns["mask"] == 1, columns["x"], mean.astype(np.float32))
    if options["weight"]:
        mean = parts["train"]["weight"].mean()
        for columns in parts.values():
            columns["weight"] = columns["weight"] / mean
    made = splits_of("arrays", parts, field="x", binarise=binarise, **options)
    return made["train"], made.get("validation"), made.get("test")  # pyright: ignore[reportReturnType]


def _absent(value: Any) -> bool:
    """Returns whether an entry of a frame is None or pandas' NA, which is not equal to itself."""
    return value is None or type(value).__name__ == "NAType"


def _values(name: str, values: Any, missing: bool = False) -> Any:
    """Returns values [N, ...], floats as f32, masked where they are missing.

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
            "[N, ...]"
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
