"""Examples of a split to show or compare: by number, of each class in turn, or the nearest ones."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from aejax.data import Split
from aejax.data.split import EVALUATION_SEED
from aejax.types import Batch


class Nearest(NamedTuple):
    """For each query the closest example of a split."""

    index: np.ndarray  # i[Q]
    distance: np.ndarray  # f[Q], L2
    images: np.ndarray  # f[Q, *event]


def chosen(split: Split, indices: np.ndarray) -> Batch:
    """Examples of a split by their number as one Batch, leaves [n, ...]; draws are fixed."""
    key = jax.random.key(EVALUATION_SEED, impl="threefry2x32")
    return split.prepare(key, split.rows(np.asarray(indices)))


def varied(labels: np.ndarray | None, n: int, examples: int) -> np.ndarray:
    """Numbers of up to n examples, i[n], that go through the classes in turn.

    Args:
      labels: i[N], or None: then the first n.
      n: how many are wanted.
      examples: N.
    """
    if labels is None:
        return np.arange(min(n, examples))
    order = np.argsort(labels, kind="stable")
    counts = np.unique(labels, return_counts=True)[1]
    # The place of each example within its class decides; within a place, the class.
    place = np.empty(examples, np.int64)
    place[order] = np.concatenate([np.arange(count) for count in counts])
    return np.lexsort((labels, place))[:n]


def nearest(queries: np.ndarray, split: Split) -> Nearest:
    """The example of a split that is closest to each query, by the L2 distance over the event.

    Grey data that training binarises by drawing is compared by its grey values.

    Args:
      queries: f[Q, *event].
      split: all of its examples are compared.

    Returns:
      Nearest, with images f[Q, *event].
    """
    flat = queries.reshape(len(queries), -1).astype(np.float64)
    best = np.full(len(flat), np.inf)
    index = np.zeros(len(flat), np.int64)
    images = np.zeros_like(flat)
    start = 0
    for batch in undrawn(split).batches(4096):
        rows = np.asarray(batch.target, np.float64).reshape(len(batch.target), -1)
        square = np.square(flat).sum(1)[:, None] - 2 * flat @ rows.T + np.square(rows).sum(1)[None]
        chosen = square.argmin(axis=1)
        least = square[np.arange(len(flat)), chosen]
        closer = least < best
        best[closer], index[closer] = least[closer], start + chosen[closer]
        images[closer] = rows[chosen[closer]]
        start += len(rows)
    distance = np.sqrt(np.square(flat - images).sum(axis=1))
    return Nearest(index, distance, images.reshape(queries.shape))


def undrawn(split: Split) -> Split:
    """The split with its grey values, where training draws pixels from them."""
    if not getattr(split.prepare, "draws", False):
        return split
    prepare = dataclasses.replace(split.prepare, draws=False)  # type: ignore[type-var]
    return dataclasses.replace(split, prepare=prepare)
