"""Changes: functions that replace a batch's input, target or context.

A change is a hashable function (key, batch, arrays) -> Batch that is applied to each batch of a
split; `arrays` are the stored arrays of the batch's examples.

    changed(train, Labels(10))                  the context is the label, one-hot
    changed(train, Attributes(shape=3))         the context is a known factor, one-hot
    changed(train, Corrupted(Masking(0.5)))     the input is noisy and the target is clean
    changed(train, Quadrants(2), ContextOnly()) the input is half of a picture, to be completed
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from aejax.checks import check
from aejax.data.split import FACTOR, Split
from aejax.data.to_batch import Prepare
from aejax.errors import UserError
from aejax.types import Array, Batch, Key

Noise: TypeAlias = Callable[[Key, Array], Array]  # adds noise to values f32[B, *event]


@runtime_checkable
class Checked(Protocol):
    """A change that checks whether it can be applied to a data set."""

    def check(self, arrays: Mapping[str, Any]) -> None:
        """Raises UserError if the change cannot be applied to a split with the given arrays."""


def changed(split: Split, *changes: Any) -> Split:
    """Returns a split to whose batches further changes are applied, in the given order.

    They are applied after the changes that the split already has. In training the noise of a change
    depends on the step. In evaluation it is the same each time, for the same batch size.

    Args:
      split: the split to change.
      *changes: functions (key, batch, arrays) -> Batch, such as the classes of this module.

    Raises:
      UserError: if the split's `prepare` does not support changes, or a one-hot context has fewer
        classes than the data.
    """
    if not isinstance(split.prepare, Prepare):
        raise UserError(
            f"changes cannot be added to {split.name}, because its `prepare` is not an "
            "ae.data.to_batch.Prepare: change its arrays instead"
        )
    for change in changes:
        # The check is done here because labels have no values while a program is traced.
        if isinstance(change, Checked):
            change.check(split.arrays)
    prepare = dataclasses.replace(split.prepare, changes=(*split.prepare.changes, *changes))
    return dataclasses.replace(split, prepare=prepare)


@dataclasses.dataclass(frozen=True)
class Labels:
    """Sets the context to the label as a one-hot vector, f32[B, classes]."""

    classes: int

    def check(self, arrays: Mapping[str, Any]) -> None:
        """Raises UserError if a label of the data is not an integer from 0 to `classes` - 1."""
        _check_classes("Labels", self.classes, arrays.get("label", arrays.get("y")))

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Returns the batch with its labels, one-hot, as the context."""
        return batch._replace(context=jax.nn.one_hot(_labels(arrays), self.classes))


@dataclasses.dataclass(frozen=True, init=False)
class Attributes:
    """Sets the context to known factors, as one-hot vectors concatenated in the given order.

    An example is Attributes(shape=3, scale=4) for sprites, whose context is f32[B, 7].
    """

    values: tuple[tuple[str, int], ...]  # (name, number of values) of each factor

    def __init__(self, **values: int):
        if not values or min(values.values()) < 1:
            raise UserError(
                f"the attributes are {values}: name at least one, each with its number of values"
            )
        object.__setattr__(self, "values", tuple(values.items()))

    def check(self, arrays: Mapping[str, Any]) -> None:
        """Raises UserError if a factor has more values in the data than `values` says."""
        for name, count in self.values:
            _check_classes(f"the attribute {name!r}", count, arrays.get(FACTOR + name))

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Returns the batch with the factors that `self.values` names, one-hot, as the context.

        Raises:
          UserError: if the data set does not have one of the factors; the error names it.
        """
        for name, _ in self.values:
            if FACTOR + name not in arrays:
                there = sorted(n.removeprefix(FACTOR) for n in arrays if n.startswith(FACTOR))
                own = ", ".join(there) or "none"
                raise UserError(
                    f"the data set has no attribute {name!r}: choose from those it has ({own})"
                )
        each = [jax.nn.one_hot(arrays[FACTOR + name], count) for name, count in self.values]
        return batch._replace(context=jnp.concatenate(each, axis=-1))


@dataclasses.dataclass(frozen=True)
class Classify:
    """Sets the target to the label, i32[B], so that the model becomes a classifier."""

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Returns the batch with its labels, i32[B], as the target."""
        return batch._replace(target=jnp.asarray(_labels(arrays), jnp.int32))


@dataclasses.dataclass(frozen=True)
class Regress:
    """Sets the target to the numbers y, f32[B, ...], so that the model predicts them from x.

    That is what a transcoder does, with the activations of another layer as y.
    """

    def check(self, arrays: Mapping[str, Any]) -> None:
        """Raises UserError if the data has no y, or if y holds integers, which are classes."""
        y = arrays.get("y")
        if y is None or not np.issubdtype(y.dtype, np.floating):
            found = "has none" if y is None else f"has y of the type {y.dtype}"
            raise UserError(
                f"Regress makes the numbers y the target, and the data set {found}: give floats, "
                "as in ae.data.arrays(x, y), or use Classify for classes"
            )

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Returns the batch with y as the target."""
        return batch._replace(target=jnp.asarray(arrays["y"], jnp.float32))


@dataclasses.dataclass(frozen=True)
class Quadrants:
    """Sets the context to some quadrants of a picture; the others are predicted (Sohn et al. 2015).

    With `seen` = 1 the context is the lower left quadrant, with 2 the left half, with 3 everything
    but the lower right quadrant, as in Pyro's example; the other pixels of the context are 0. The
    mask restricts the likelihood to the unseen pixels. The encoder's input stays the whole picture.
    """

    seen: int  # 1, 2 or 3

    def __post_init__(self):
        if self.seen not in (1, 2, 3):
            raise UserError(f"the number of quadrants seen is {self.seen}: give 1, 2 or 3")

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Returns a batch of pictures f32[B, H, W, C] with the seen quadrants as the context."""
        height, width = batch.x.shape[1:3]
        seen = np.zeros((1, height, width, 1), np.float32)
        seen[:, height // 2 :, : width // 2] = 1.0
        if self.seen > 1:
            seen[:, : height // 2, : width // 2] = 1.0
        if self.seen > 2:
            seen[:, : height // 2, width // 2 :] = 1.0
        mask = jnp.broadcast_to(1.0 - seen, batch.target.shape)
        return batch._replace(context=batch.x * seen, mask=mask)


@dataclasses.dataclass(frozen=True)
class InputToo:
    """Sets the context to the input, which a skip connection and `nets.Normalise` read."""

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Returns the batch with its input as the context."""
        return batch._replace(context=batch.x)


@dataclasses.dataclass(frozen=True)
class Unfilled:
    """Makes missing values of the input NaN again, which `nets.Views` reads as missing views.

    `ae.data.arrays` fills them with means over train, and gives them the mask 0.
    """

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Applies the change to one batch."""
        if batch.mask is None:
            return batch
        missing = jnp.broadcast_to(batch.mask, batch.x.shape) == 0
        return batch._replace(x=jnp.where(missing, jnp.nan, batch.x))


@dataclasses.dataclass(frozen=True)
class ContextOnly:
    """Makes the context the input, so that the encoder sees nothing else, and leaves no context."""

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Returns the batch with its context, an array, as the input, and without a context."""
        return batch._replace(x=batch.context, context=None)


@dataclasses.dataclass(frozen=True)
class Corrupted:
    """Adds noise to the input and, if `clean` is False, uses the noisy input as the target too."""

    noise: Noise
    clean: bool = True  # whether the target stays without noise

    def __post_init__(self):
        if not callable(self.noise):
            raise UserError(
                f"the noise of Corrupted is {self.noise!r}, which is not a function: give one, for "
                "example Masking(0.5)"
            )

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Returns the batch with a noisy input, which is also the target unless `clean` is True."""
        if key is None:
            raise ValueError("this split has noisy inputs, so preparing a batch needs a key")
        x = self.noise(key, batch.x)
        return batch._replace(x=x, target=batch.target if self.clean else x)


@dataclasses.dataclass(frozen=True)
class Missing:
    """Marks NaN as missing: the mask is 0 there, and the encoder sees `fill`.

    `arrays` and `table` mark missing values themselves; data sets that are read during training
    need this change.
    """

    fill: float = 0.0  # NaN leaves the choice to `nets.Standardised`, which reads NaN as the mean

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Returns a batch without NaN: x has `fill` in its place, the target 0 and the mask 0."""
        missing = jnp.isnan(batch.target)
        mask = jnp.where(missing, 0.0, 1.0 if batch.mask is None else batch.mask)
        return batch._replace(
            x=jnp.where(jnp.isnan(batch.x), self.fill, batch.x),
            target=jnp.where(missing, 0.0, batch.target),
            mask=mask,
        )


@dataclasses.dataclass(frozen=True)
class GaussianNoise:
    """Adds normal noise of standard deviation `std` to every element, without clipping."""

    std: float

    def __post_init__(self):
        check(self, "std", lambda std: 0 <= std < math.inf, "a number, 0 or more")

    def __call__(self, key: Key, x: Array) -> Array:
        """Returns the noisy values, f32[B, *event], of x f32[B, *event]."""
        return x + self.std * jax.random.normal(key, x.shape)


@dataclasses.dataclass(frozen=True)
class SaltAndPepper:
    """Replaces a random share of the elements by 0 or 1, with equal probability."""

    share: float

    def __post_init__(self):
        _check_share(self)

    def __call__(self, key: Key, x: Array) -> Array:
        """Returns the noisy values, f32[B, *event], of x f32[B, *event]."""
        uniform = jax.random.uniform(key, x.shape)
        return jnp.where(uniform < self.share, (uniform < 0.5 * self.share).astype(x.dtype), x)


@dataclasses.dataclass(frozen=True)
class Masking:
    """Replaces a random share of the elements by 0 (Vincent et al. 2008)."""

    share: float

    def __post_init__(self):
        _check_share(self)

    def __call__(self, key: Key, x: Array) -> Array:
        """Returns the noisy values, f32[B, *event], of x f32[B, *event]."""
        return x * jax.random.bernoulli(key, 1.0 - self.share, x.shape)


@dataclasses.dataclass(frozen=True)
class Squares:
    """Crops the central square of each picture, resizes it, and rounds it to 256 levels."""

    crop: int  # the side of the central square, in pixels
    side: int  # the side of the resized square, in pixels

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Returns a batch with cropped pictures, from one with pictures f32[B, H, W, C] in [0, 1].

        Raises:
          UserError: if the pictures are smaller than the square.
        """
        height, width, channels = batch.x.shape[1:]
        top, left = (height - self.crop) // 2, (width - self.crop) // 2
        if min(top, left) < 0:
            raise UserError(
                f"the crop of {self.crop}x{self.crop} pixels is larger than the pictures "
                f"({height}x{width}): choose a smaller crop"
            )
        middle = batch.x[:, top : top + self.crop, left : left + self.crop]
        shape = (len(middle), self.side, self.side, channels)
        x = jax.image.resize(middle, shape, "linear", antialias=True)
        x = jnp.round(jnp.clip(x, 0.0, 1.0) * 255.0) * np.float32(1.0 / 255.0)
        return batch._replace(x=x, target=x)


def _check_share(noise: Any) -> None:
    check(noise, "share", lambda share: 0 <= share <= 1, "a number from 0 to 1")


def _check_classes(name: str, classes: int, column: np.ndarray | None) -> None:
    """Raises UserError unless the labels of the column are integers from 0 to `classes` - 1."""
    if column is None:
        return
    odd = (column < 0) | (column != np.floor(column))
    if column.ndim != 1 or odd.any():
        raise UserError(
            f"{name} needs one class for each example, a whole number from 0 on, but the labels "
            f"have shape {column.shape} and hold {column[odd].flat[0] if odd.any() else 'rows'}: "
            "number the classes from 0"
        )
    largest = np.max(column, initial=-1)
    if largest >= classes:
        raise UserError(
            f"{name} has {classes} classes, from 0 to {classes - 1}, but row "
            f"{int(np.argmax(column >= classes))} of the data has label {largest}: repair that "
            f"row, or give {largest + 1} classes if the label is right"
        )


def _labels(arrays: Mapping[str, Any]) -> Array:
    """Returns the labels of a batch, integers [B].

    Raises:
      UserError: if the data set has no labels.
    """
    found = arrays.get("label", arrays.get("y"))
    if found is None:
        raise UserError("the data set has no labels: choose one with labels, or omit the change")
    return jnp.asarray(found)
