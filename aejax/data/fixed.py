"""Lets evaluations read a plain array or a single batch in the same way as a split."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from aejax.errors import UserError
from aejax.events import batch_axes
from aejax.types import Batch


@runtime_checkable
class Data(Protocol):
    """Examples in a fixed order, such as an `aejax.data.Split`."""

    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterator[Batch]:
        """Yields all examples once, in order; the last batch may be smaller."""
        ...


@dataclasses.dataclass(frozen=True)
class Fixed:
    """The examples of one batch, in the batch's order."""

    batch: Batch

    def __len__(self) -> int:
        return len(self.batch.x)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yields all examples once, in order; the last batch may be smaller."""
        for start in range(0, len(self), size):
            stop = start + size
            yield jax.tree.map(lambda leaf, a=start, b=stop: leaf[a:b], self.batch)


def as_data(data: Any, size: int | None = None, event: tuple[int, ...] | None = None) -> Data:
    """Converts data to an object over whose batches an evaluation can iterate.

    Args:
      data: a split; or an array [N, *event], which is both input and target; or a Batch, if input,
        target or context differ.
      size: the number of elements of one example. An array may then have several batch axes, as
        [B, T, d], where each vector [d] is one example. None: only the first axis is a batch axis.
      event: the shape of one example, if it has several axes; see `events.batch_axes`.

    Raises:
      UserError: if the data is none of these, or its examples have another size.
    """
    if isinstance(data, Data):
        return data
    if not isinstance(data, Batch):
        x = _array(data)
        if size is not None:
            x = x.reshape(-1, *x.shape[batch_axes(x, size, event, "the model reads") :])
        data = Batch(x, x)
    if data.mask is not None:
        shape = np.shape(data.target)
        data = data._replace(mask=np.broadcast_to(np.asarray(data.mask), shape))
    return Fixed(data)


def _array(data: Any) -> Any:
    """Returns the data as an array, after checking that it is numeric and has two axes or more."""
    values = np.asarray(data) if hasattr(data, "__array__") or isinstance(data, list) else None
    if values is None or values.ndim < 2 or values.dtype.kind == "O":
        what = f"type {type(data).__name__}" if values is None else f"shape {values.shape}"
        raise UserError(
            f"an evaluation cannot read data of {what}: give an array [N, ...] of numbers, a Batch "
            "or a split, as in train, validation, test = ae.data.arrays(x)"
        )
    return values
