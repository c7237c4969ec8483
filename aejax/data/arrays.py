"""Makes train, validation and test splits of a user's own arrays.

    train, validation, test = arrays(x, y)                      # divided at random
    train, validation, test = arrays(x, order="time", test=24)  # the last 24 rows are the test
    train, _, test = splits(x_train, None, (x_test, y_test))    # divided already

A split that was not asked for has length 0. Missing values, which are NaN or masked in a `numpy.ma`
array, get mask 0: they do not contribute to the likelihood, and the encoder sees the mean over
train in their place (0 among integers).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from aejax.data import splitting
from aejax.data.columns import Examples, stored
from aejax.data.split import first_outside
from aejax.data.splitting import PARTS, Binarise, Splits, divide
from aejax.errors import UserError


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
) -> Splits:
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
      Three splits, whose rows keep the order of x. Validation and test have no examples if 0 were
      asked for.

    Raises:
      UserError: if x holds an infinity, has its channels first, or, when it is to be binarised,
        holds a value outside [0, 1]; if the arrays differ in length; or if a split would be empty.
    """
    columns, options = stored([Examples(x, y, context, weights, groups)], channels, scale)
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
) -> Splits:
    """Returns splits of data that is already divided, such as a benchmark with its own test set.

    Args:
      train: x [N, *event], a tuple (x, y), or a mapping with x and any of y, context, weights and
        groups, in the forms that `arrays` accepts.
      validation: the same, None, or a share or number of examples to take from train at random.
      test: the same as train, or None.
      seed: the seed with which validation is taken from train.
      binarise: as in `arrays`.
      channels: as in `arrays`.
      scale: as in `arrays`.

    Returns:
      Three splits. Validation and test have no examples if None, or 0, was given.

    Raises:
      UserError: as in `arrays`, and if the splits have different columns or shapes.
    """
    share = validation if isinstance(validation, int | float) else 0
    own = None if isinstance(validation, int | float) else validation
    given = {"train": train, "validation": own, "test": test}
    given = {part: _examples(part, data) for part, data in given.items() if data is not None}
    columns, options = stored(list(given.values()), channels, scale)
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


def _examples(part: str, data: Any) -> Examples:
    if isinstance(data, Mapping):
        unknown = sorted(set(data) - set(Examples._fields))
        if unknown or "x" not in data:
            raise UserError(
                f"{part} is a mapping of {sorted(data)}: give x and any of y, context, weights and "
                "groups, or use ae.data.table for columns of other names"
            )
        return Examples(**data)
    return Examples(*data) if isinstance(data, tuple) else Examples(data)


def _made(
    parts: Mapping[str, dict[str, np.ndarray]], options: dict[str, Any], binarise: Binarise
) -> Splits:
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
    none = {name: column[:0] for name, column in parts["train"].items()}
    three = [parts.get(part, none) for part in PARTS]
    made = splitting.splits("arrays", three, field="x", binarise=binarise, **options)
    if options["scale"] == 1.0:
        return made
    facts = {"divided_by": options["scale"]}  # environment.json records it
    train, validation, test = (dataclasses.replace(split, facts=facts) for split in made)
    return train, validation, test
