"""The mean and standard deviation of each element of x, with which a model standardises x."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from aejax.data.split import Split


class Statistics(NamedTuple):
    """The mean and standard deviation of each element of x, in the shape of one example."""

    mean: Any  # nested tuples of numbers, which a Linen module may have as a field
    std: Any  # nested tuples of numbers; 1 where an element does not vary


def statistics(split: Split) -> Statistics:
    """Returns the mean and standard deviation of each element of x over a split, usually train.

    Missing values are left out, and every example counts the same, also if it has a weight. Where
    all values are equal the standard deviation is given as 1, so that they become 0.
    """
    count = total = square = 0.0
    for batch in split.batches(4096):
        x = np.asarray(batch.x, np.float64)
        seen = np.ones_like(x) if batch.mask is None else np.broadcast_to(batch.mask, x.shape)
        count, total = count + seen.sum(0), total + np.where(seen, x, 0.0).sum(0)
    mean = total / np.maximum(count, 1.0)
    for batch in split.batches(4096):
        x = np.asarray(batch.x, np.float64)
        seen = np.ones_like(x) if batch.mask is None else np.broadcast_to(batch.mask, x.shape)
        square = square + np.where(seen, np.square(x - mean), 0.0).sum(0)
    std = np.sqrt(square / np.maximum(count, 1.0))
    return Statistics(_tuples(mean.tolist()), _tuples(np.where(std > 0, std, 1.0).tolist()))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
