"""Changes of a batch: what the encoder sees, what is explained, and what is known beside it.

A change is a hashable function (key, batch, arrays) -> Batch that comes after a split's prepare;
`arrays` are the stored columns of the batch.

    changed(train, Labels(10))                  the label as context, one-hot
    changed(train, Attributes(shape=3))         a known factor as context, one-hot
    changed(train, Corrupted(Masking(0.5)))     a noisy input, a clean target
    changed(train, Quadrants(2), ContextOnly()) one half of each picture, to be completed
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

Noise: TypeAlias = Callable[[Key, Array], Array]  # of values f32[B, *event]


@runtime_checkable
class Checked(Protocol):
    """A change that not every data set can have."""

    def check(self, arrays: Mapping[str, Any]) -> None:
        """Raises UserError if the arrays of a split do not allow the change."""


def changed(split: Split, *changes: Any) -> Split:
    """The split with changes after those that it has, in the order given.

    Noise depends on the step in training; in evaluation it is fixed, for one size of batch.

    Raises:
      UserError: if the split's batches are made in a way of their own, or a context has fewer
        classes than its labels.
    """
    if not isinstance(split.prepare, Prepare):
        raise UserError(f"the batches of {split.name} cannot be changed: change its arrays instead")
    for change in changes:
        # Here, since within a program the labels have no values yet.
        if isinstance(change, Checked):
            change.check(split.arrays)
    prepare = dataclasses.replace(split.prepare, changes=(*split.prepare.changes, *changes))
    return dataclasses.replace(split, prepare=prepare)


@dataclasses.dataclass(frozen=True)
class Labels:
    """The label becomes the context, f32[B, classes], one-hot."""

    classes: int

    def check(self, arrays: Mapping[str, Any]) -> None:
        """Raises UserError if there are more classes in the data."""
        _check_classes("Labels", self.classes, arrays.get("label", arrays.get("y")))

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Changes one batch."""
        return batch._replace(context=jax.nn.one_hot(_labels(arrays), self.classes))


@dataclasses.dataclass(frozen=True, init=False)
class Attributes:
    """Known factors become the context, f32[B, sum of their values], one-hot each, as named.

    Attributes(shape=3, scale=6) of sprites; of faces Attributes(Smiling=2, Eyeglasses=2).
    """

    values: tuple[tuple[str, int], ...]  # name of a factor, number of its values

    def __init__(self, **values: int):
        if not values or min(values.values()) < 1:
            raise UserError(
                f"attributes {values}: name one or more, each with its number of values"
            )
        object.__setattr__(self, "values", tuple(values.items()))

    def check(self, arrays: Mapping[str, Any]) -> None:
        """Raises UserError if a factor has more values in the data."""
        for name, count in self.values:
            _check_classes(f"the attribute {name!r}", count, arrays.get(FACTOR + name))

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Changes one batch.

        Raises:
          UserError: naming a factor that the data set does not have.
        """
        for name, _ in self.values:
            if FACTOR + name not in arrays:
                there = sorted(n.removeprefix(FACTOR) for n in arrays if n.startswith(FACTOR))
                own = ", ".join(there) or "none"
                raise UserError(f"the data set has no attribute {name!r}: its own are {own}")
        each = [jax.nn.one_hot(arrays[FACTOR + name], count) for name, count in self.values]
        return batch._replace(context=jnp.concatenate(each, axis=-1))


@dataclasses.dataclass(frozen=True)
class Classify:
    """The label becomes the target, i32[B]: what a classifier explains."""

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Changes one batch."""
        return batch._replace(target=jnp.asarray(_labels(arrays), jnp.int32))


@dataclasses.dataclass(frozen=True)
class Quadrants:
    """Some quadrants of a picture are the context, the others are what counts (Sohn et al. 2015).

    Seen are the lower left, with 2 the left half, with 3 all but the lower right, as in Pyro's
    example. What is not seen is 0 in the context. The input stays whole: a posterior may read it.
    """

    seen: int  # 1, 2 or 3

    def __post_init__(self):
        if self.seen not in (1, 2, 3):
            raise UserError(f"{self.seen} quadrants seen: give 1, 2 or 3")

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Changes one batch of pictures [B, H, W, C]."""
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
class ContextOnly:
    """The context becomes the input: nothing else is seen."""

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Changes one batch that has a context of one array."""
        return batch._replace(x=batch.context, context=None)


@dataclasses.dataclass(frozen=True)
class Corrupted:
    """The input is noisy; so is the target, with the same noise, unless it is to stay clean."""

    noise: Noise
    clean: bool = True  # whether the target stays as it is

    def __post_init__(self):
        if not callable(self.noise):
            raise UserError(
                f"Corrupted was given {self.noise!r}, which is no noise: give one, as Masking(0.5)"
            )

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Changes one batch."""
        if key is None:
            raise ValueError("a batch that is corrupted needs a key")
        x = self.noise(key, batch.x)
        return batch._replace(x=x, target=batch.target if self.clean else x)


@dataclasses.dataclass(frozen=True)
class GaussianNoise:
    """x + std * noise, noise ~ N(0, 1) in every element; not clipped."""

    std: float

    def __post_init__(self):
        check(self, "std", lambda std: 0 <= std < math.inf, "a number, 0 or more")

    def __call__(self, key: Key, x: Array) -> Array:
        """f32[B, *event] -> f32[B, *event]."""
        return x + self.std * jax.random.normal(key, x.shape)


@dataclasses.dataclass(frozen=True)
class SaltAndPepper:
    """A share of the elements become 0 or 1, half of them each."""

    share: float

    def __post_init__(self):
        _check_share(self)

    def __call__(self, key: Key, x: Array) -> Array:
        """f32[B, *event] -> f32[B, *event]."""
        uniform = jax.random.uniform(key, x.shape)
        return jnp.where(uniform < self.share, (uniform < 0.5 * self.share).astype(x.dtype), x)


@dataclasses.dataclass(frozen=True)
class Masking:
    """A share of the elements become 0 (Vincent et al. 2008)."""

    share: float

    def __post_init__(self):
        _check_share(self)

    def __call__(self, key: Key, x: Array) -> Array:
        """f32[B, *event] -> f32[B, *event]."""
        return x * jax.random.bernoulli(key, 1.0 - self.share, x.shape)


@dataclasses.dataclass(frozen=True)
class Squares:
    """The middle of each picture, made a square of `side` pixels on the grid of 256 levels."""

    crop: int  # pixels of the middle square
    side: int

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Changes one batch of pictures [B, H, W, C] in [0, 1], input and target alike."""
        height, width, channels = batch.x.shape[1:]
        top, left = (height - self.crop) // 2, (width - self.crop) // 2
        if min(top, left) < 0:
            raise UserError(
                f"a square of {self.crop} pixels cannot be cut out of {height}x{width} pictures"
            )
        middle = batch.x[:, top : top + self.crop, left : left + self.crop]
        shape = (len(middle), self.side, self.side, channels)
        x = jax.image.resize(middle, shape, "linear", antialias=True)
        x = jnp.round(jnp.clip(x, 0.0, 1.0) * 255.0) * np.float32(1.0 / 255.0)
        return batch._replace(x=x, target=x)


def _check_share(noise: Any) -> None:
    check(noise, "share", lambda share: 0 <= share <= 1, "a number from 0 to 1")


def _check_classes(name: str, classes: int, column: np.ndarray | None) -> None:
    """Raises UserError for a column with a label that has no place in a one-hot vector."""
    largest = -1 if column is None else np.max(column, initial=-1)
    if largest >= classes:
        raise UserError(
            f"{name} has {classes} classes, but the data has label {largest}: give "
            f"{largest + 1} or more"
        )


def _labels(arrays: Mapping[str, Any]) -> Array:
    """The column of classes, i[B].

    Raises:
      UserError: if there is none.
    """
    found = arrays.get("label", arrays.get("y"))
    if found is None:
        raise UserError("the data set has no labels: take one that has")
    return jnp.asarray(found)
