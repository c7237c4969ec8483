"""Lets evaluations read a plain array or a single batch in the same way as a split."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from aejax.events import batch_axes, marked, numbers
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
    """Returns data as an object whose method `batches` yields its examples, for an evaluation.

    Args:
      data: a split; or an array [N, *event], which is both input and target; or a Batch, if input,
        target or context differ. Targets that are NaN are missing and get mask 0.
      size: the number of elements of one example. An array may then have several batch axes, as
        [B, T, d], where each vector [d] is one example. None: only the first axis is a batch axis.
      event: the shape of one example, if it has several axes; see `events.batch_axes`.

    Raises:
      UserError: if the data is neither a split nor an array nor a Batch, or an example does not
        have `size` elements.
    """
    if isinstance(data, Data):
        return data
    if not isinstance(data, Batch):
        # The array stays on the host, because it may be large.
        x: Any = np.asarray(numbers(data, pictures=size is None))
        if size is not None:
            x = x.reshape(-1, *x.shape[batch_axes(x, size, event, "the model reads") :])
        data = Batch(x, x)
    batch = marked(data)
    if batch.mask is not None:
        shape = np.shape(batch.target)
        batch = batch._replace(mask=np.broadcast_to(np.asarray(batch.mask), shape))
    return Fixed(batch)
