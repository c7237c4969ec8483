"""Makes train, validation and test splits of a user's own arrays.

    train, validation, test = arrays(x, y)                      # divided at random
    train, validation, test = arrays(x, order="time", test=24)  # the last 24 rows are the test
    train, _, test = splits(x_train, None, (x_test, y_test))    # divided already
    new = rows(x_new, like=train)                               # prepared as train was

A split that was not asked for has length 0. Missing values, which are NaN or masked in a `numpy.ma`
array, get mask 0: they do not contribute to the likelihood, and the encoder sees the mean over
train in their place (0 among integers, or where no example of train has a value).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, cast

import numpy as np

from aejax.data import splitting
from aejax.data.columns import Examples, columns_of
from aejax.data.form import Form, formed
from aejax.data.frame import read_table
from aejax.data.split import Split, first_outside
from aejax.data.splitting import PARTS, Binarise, Splits, divide
from aejax.data.to_batch import Prepare
from aejax.errors import UserError

FIELDS = ("x", "y", "context", "weights", "groups")  # what a mapping of examples may hold


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
      y: classes, which are integers or text, or other numbers of the examples, [N, ...]; or None.
        Training does not use them, unless a change such as `changes.Regress` makes them the target.
      validation: the share (below 1) or the number of examples in the validation split; 0: none.
      test: the share (below 1) or the number of the examples in the test split; 0: none.
      seed: the seed of the random division.
      binarise: "dynamic", "static" or "none", as in `aejax.data.images`.
      context: the values on which encoder, decoder and prior are conditioned: [N] or [N, C], or a
        mapping of such arrays, which are concatenated. Integers and text [N] are classes and become
        one-hot; floats are covariates and stay as they are.
      weights: f[N], 0 or more, by which the loss of each example is multiplied; they are scaled to
        a mean of 1 over train. Evaluations and `statistics` do not use them; to average results by
        weight, give them to `evaluation.means`.
      groups: [N], a group label for each example; all examples of a group go to the same split.
      order: "random" divides at random; "time" takes the last rows as test, those before them as
        validation, and the first as train.
      channels: "first" transposes pictures [N, C, H, W] to [N, H, W, C].
      scale: the stored value that becomes 1.0; None: 255 for uint8 pictures, else 1.

    Returns:
      The train, validation and test split, whose rows keep the order of x. Validation and test
      have no examples if 0 were asked for.

    Raises:
      UserError: if x holds an infinity, has its channels first, or, when it is to be binarised,
        holds a value outside [0, 1]; if the arrays differ in length; or if a split would be empty.
    """
    return divided(
        Examples(x, y, context, weights, groups),
        validation=validation,
        test=test,
        seed=seed,
        binarise=binarise,
        order=order,
        channels=channels,
        scale=scale,
    )


def divided(
    given: Examples,
    *,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    binarise: Binarise = "none",
    order: Literal["random", "time"] = "random",
    channels: Literal["first", "last"] = "last",
    scale: float | None = None,
) -> Splits:
    """Divides a record of examples into train, validation and test splits.

    The other arguments are those of `arrays`.
    """
    form, (columns,) = formed([given], channels, scale)
    sizes = {"validation": validation, "test": test}
    shares = {part: size for part, size in sizes.items() if size != 0}
    group = columns.pop("group", None)
    cut = divide(columns, "arrays", shares=shares, seed=seed, groups=group, ordered=order == "time")
    return _made(dict(zip(["train", *shares], cut, strict=True)), form, binarise)


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
      validation: data in the same form as train; or a share (below 1) or number of examples to take
        from train at random; or None for no such split.
      test: data in the same form as train, or None for no such split.
      seed: the seed with which validation is taken from train.
      binarise: as in `arrays`.
      channels: as in `arrays`.
      scale: as in `arrays`.

    Returns:
      The train, validation and test split. Validation and test have no examples if None, or 0, was
      given.

    Raises:
      UserError: in the cases that `arrays` names, and if the splits have different columns or
        shapes.
    """
    share = validation if isinstance(validation, int | float) else 0
    own = None if isinstance(validation, int | float) else validation
    given = {"train": train, "validation": own, "test": test}
    given = {part: _examples(part, data) for part, data in given.items() if data is not None}
    form, columns = formed(list(given.values()), channels, scale)
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
    return _made(parts, form, binarise)


def rows(given: Any, *, like: Split) -> Split:
    """Returns new examples as a split, prepared in the same way as those of a training split.

    A missing value becomes the mean over the training split, a class the one-hot column that it has
    there, and pictures are divided by the same number. What a model computes for a row therefore
    does not depend on the other rows.

    Args:
      given: for a split of `table`, a table with the same columns, of which y, weights and groups
        may be absent; for one of `tokens`, a list of texts; otherwise x, a tuple (x, y) or a
        mapping, as in `splits`.
      like: a split that `arrays`, `splits`, `table` or `tokens` made, or `changed` from one of
        these.

    Raises:
      UserError: if x has another shape or kind of numbers than in training, if the context is
        absent, if a class is unknown, and in the cases that `arrays` names.
    """
    form = _form(like)
    if form.texts is not None:
        given = form.texts(given)
    new = _examples("rows", given) if form.names is None else read_table(given, form.names, True)
    columns = columns_of(new, form.channels)
    columns.pop("group", None)
    x = columns["x"]
    if x.shape[1:] != form.event:
        raise UserError(
            f"the new rows have x of shape {x.shape}, but train has examples of shape "
            f"{form.event}: give [N, {', '.join(map(str, form.event))}]"
        )
    if form.integers and x.dtype.kind == "f":
        raise UserError("the new rows hold floats, but x of train holds integers: give integers")
    columns["x"] = x if form.integers else x.astype(np.float32)
    if like.prepare.mask is not None:
        columns.setdefault("mask", np.ones(x.shape, np.uint8))
    form.encode(columns, new)
    none = {name: column[:0] for name, column in columns.items()}
    binarise = cast("Binarise", like.binarised)
    made = _splits([none, none, form.finished(columns)], form, binarise)[2]
    prepare: Any = made.prepare
    prepare = dataclasses.replace(prepare, changes=like.prepare.changes)
    return dataclasses.replace(made, name="rows", prepare=prepare)


def context(values: Any, *, like: Split) -> np.ndarray:
    """Converts values to the context of N examples, f32[N, C], with the columns as in training.

    The result can be given to `model.sample` and `model.decode`, and as the context of a Batch. A
    single value is repeated for all examples:
    context({"sex": ["f", "m"], "age": 60.0}, like=train) has two rows.

    Args:
      values: a mapping from the name of each context column to its values [N], or to a single
        value; or one array, if the context of `like` was given as one.
      like: a split that `arrays`, `splits` or `table` made with a context.

    Raises:
      UserError: if `like` has no context, if one of the context's arrays is absent, or if a class
        is unknown.
    """
    form = _form(like)
    if form.parts is None:
        raise UserError(
            f"{like.name} was made without a context: give `context` to ae.data.arrays or "
            "ae.data.table when you make it"
        )
    if isinstance(values, Mapping):
        count = max((len(v) for v in values.values() if np.ndim(v)), default=1)
        values = {k: v if np.ndim(v) else np.repeat(v, count) for k, v in values.items()}
    return form.context(values)


def _form(like: Split) -> Form:
    if like.form is None or not isinstance(like.prepare, Prepare):
        raise UserError(
            f"{like.name} was not made by ae.data.arrays, ae.data.splits or ae.data.table, so it "
            "does not say how its rows were prepared: make it by one of these"
        )
    return like.form


def _examples(part: str, data: Any) -> Examples:
    if isinstance(data, Mapping):
        unknown = sorted(set(data) - set(FIELDS))
        if unknown or "x" not in data:
            raise UserError(
                f"{part} is a mapping of {sorted(data)}: give x and any of y, context, weights and "
                "groups, or use ae.data.table for columns of other names"
            )
        return Examples(**data)
    return Examples(*data) if isinstance(data, tuple) else Examples(data)


def _made(parts: dict[str, dict[str, np.ndarray]], form: Form, binarise: Binarise) -> Splits:
    """Returns the train, validation and test split, with missing values replaced by train's means.

    Args:
      parts: "train", and perhaps "validation" and "test" -> the arrays of this split by name.
      form: how values become numbers.
      binarise: "dynamic", "static" or "none".
    """
    form = form.fitted(parts["train"])
    parts = {part: form.finished(columns) for part, columns in parts.items()}
    none = {name: column[:0] for name, column in parts["train"].items()}
    return _splits([parts.get(part, none) for part in PARTS], form, binarise)


def _splits(three: list[dict[str, np.ndarray]], form: Form, binarise: Binarise) -> Splits:
    if binarise != "none":
        for columns in three:
            outside = first_outside(columns["x"], 0.0, form.scale)
            if outside is not None:
                raise UserError(
                    f"row {outside[0]} of x holds {outside[1]:g}, which cannot be binarised "
                    f"because it is outside [0, {form.scale:g}]: rescale x or give "
                    "binarise='none'"
                )
    names: dict[str, Any] = {
        name: name if name in three[-1] else None for name in ("context", "mask", "weight")
    }
    made = splitting.splits(
        "arrays",
        three,
        field="x",
        scale=form.scale,
        binarise=binarise,
        classes=form.labels,
        integers=form.scale == 1.0 and form.integers and binarise == "none",
        **names,
    )
    # environment.json records the facts.
    facts = {} if form.scale == 1.0 else {"divided_by": form.scale}
    train, validation, test = (dataclasses.replace(s, facts=facts, form=form) for s in made)
    return train, validation, test
