"""Selects examples of a split to show or compare: by index, by class, or by distance."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from aejax.data import Split
from aejax.data.split import EVALUATION_SEED
from aejax.types import Batch


class Nearest(NamedTuple):
    """The closest example of a split to each of Q given examples, the queries."""

    index: np.ndarray  # i[Q], the indices of the examples in the split
    distance: np.ndarray  # f[Q], the L2 distances
    images: np.ndarray  # f[Q, *event], the examples


def chosen(split: Split, indices: np.ndarray) -> Batch:
    """Returns the examples of a split with the given indices as one Batch, leaves [n, ...].

    If the split changes examples at random, for example by binarisation, a fixed key is used.
    """
    key = jax.random.key(EVALUATION_SEED, impl="threefry2x32")
    return split.prepare(key, split.rows(np.asarray(indices)))


def varied(labels: np.ndarray | None, n: int, examples: int) -> np.ndarray:
    """Returns the indices of min(n, N) examples, i64[...], with about as many from each class.

    The first example of each class comes first, then the second of each class, and so on.

    Args:
      labels: i[N], the classes of the examples; None: the first n examples are selected.
      n: the number of examples to select.
      examples: N, the number of examples in the data.
    """
    if labels is None:
        return np.arange(min(n, examples))
    order = np.argsort(labels, kind="stable")
    counts = np.unique(labels, return_counts=True)[1]
    # The examples are sorted by their rank within their class, and then by class.
    place = np.empty(examples, np.int64)
    place[order] = np.concatenate([np.arange(count) for count in counts])
    return np.lexsort((labels, place))[:n]


def nearest(queries: np.ndarray, split: Split) -> Nearest:
    """Finds the example of a split with the smallest L2 distance to each query.

    If training binarises grey images at random, the grey values are compared.

    Args:
      queries: f[Q, *event], the examples to find neighbours of, such as samples of the model.
      split: the split; every one of its examples is compared with every query.

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
    """Returns the split without random binarisation, so that its targets are grey values.

    A split that draws no binary pixels is returned unchanged.
    """
    if not getattr(split.prepare, "draws", False):
        return split
    prepare = dataclasses.replace(split.prepare, draws=False)  # type: ignore[type-var]
    return dataclasses.replace(split, prepare=prepare)
