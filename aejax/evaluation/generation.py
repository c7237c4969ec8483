"""Compares generated examples with real ones, using features that a given function computes.

The Fréchet distance is the FID, and the kernel distance the KID, only if the features are those of
the Inception classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from aejax.errors import UserError

BLOCK = 1024  # the number of rows that are compared with all others at a time

Features = Callable[[np.ndarray], np.ndarray]  # maps examples f[B, *event] to f[B, D]


class Quality(NamedTuple):
    """Measures of generated examples, compared with real ones."""

    frechet: float  # squared Fréchet distance of two Gaussians fitted to the features
    kernel: float  # squared maximum mean discrepancy, unbiased, so it may be slightly negative
    precision: float  # share of generated examples in the estimated manifold of real ones
    recall: float  # share of real examples in the estimated manifold of generated ones
    spread: float  # mean distance between two generated examples


def quality(
    features: Features,
    real: np.ndarray,
    generated: np.ndarray,
    *,
    neighbours: int = 3,
    batch: int = 500,
) -> Quality:
    """Computes all fields of `Quality`, which compare generated examples with real ones.

    Args:
      features: maps examples f[B, *event] to features f[B, D].
      real: f[N, *event], real examples; results for different N or M are not comparable.
      generated: f[M, *event], generated examples.
      neighbours: k, the number of nearest neighbours for precision and recall.
      batch: the number of examples given to `features` at a time.
    """
    first, second = (taken(features, examples, batch) for examples in (real, generated))
    return Quality(
        frechet_distance(first, second),
        kernel_distance(first, second),
        *precision_recall(first, second, neighbours=neighbours),
        spread(second),
    )


def taken(features: Features, examples: np.ndarray, batch: int = 500) -> np.ndarray:
    """Returns the features of all examples f[N, *event], f64[N, D], computed in batches."""
    parts = [
        np.asarray(features(examples[start : start + batch]), np.float64)
        for start in range(0, len(examples), batch)
    ]
    return np.concatenate(parts)


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Computes the squared Fréchet distance of two Gaussians fitted to the features.

    With means m, n and covariances S, T it is |m - n|^2 + tr(S + T - 2 (S^1/2 T S^1/2)^1/2), the
    squared 2-Wasserstein distance (Dowson and Landau 1982; Heusel et al. 2017, equation 6). It is
    biased upwards for few examples.

    Args:
      real: f[N, D], the features of real examples.
      generated: f[M, D], the features of generated examples.

    Raises:
      UserError: if the arrays are not [N, D] and [M, D], a feature is not finite, or N or M is
        below 2.
    """
    real, generated = _checked(real, generated, least=2)
    gap = real.mean(axis=0) - generated.mean(axis=0)
    first, second = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (real, generated))
    root = _square_root(first)
    # This symmetric matrix has the same eigenvalues as S T.
    product = np.linalg.eigvalsh(root @ second @ root)
    middle = np.sum(np.sqrt(np.maximum(product, 0.0)))
    return float(gap @ gap + np.trace(first) + np.trace(second) - 2.0 * middle)


def kernel_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Computes an unbiased estimate of the squared MMD with the kernel (x . y / D + 1)^3.

    It follows Binkowski et al. 2018, section 4, except that it is one estimate from all examples,
    not a mean over subsets.

    Args:
      real: f[N, D], the features of real examples.
      generated: f[M, D], the features of generated examples.

    Raises:
      UserError: if a set has fewer than 2 examples, if a feature is not finite, or if the sets
        differ in D.
    """
    real, generated = _checked(real, generated, least=2)

    def total(x: np.ndarray, y: np.ndarray) -> float:
        return sum(float(_kernel(rows, y).sum()) for rows in _blocks(x))

    def within(x: np.ndarray) -> float:
        itself = float(np.sum((np.sum(np.square(x), axis=1) / x.shape[1] + 1.0) ** 3))
        return (total(x, x) - itself) / (len(x) * (len(x) - 1))

    across = total(real, generated) / (len(real) * len(generated))
    return within(real) + within(generated) - 2.0 * across


def precision_recall(
    real: np.ndarray, generated: np.ndarray, *, neighbours: int = 3
) -> tuple[float, float]:
    """Computes improved precision and recall (Kynkäänniemi et al. 2019, equations 1 and 2).

    Each point of a set is the centre of a ball that reaches to its k-th nearest neighbour in the
    set, and the set covers the union of these balls. Precision is the share of generated examples
    that the real set covers; recall is the share of real examples that the generated set covers.

    Args:
      real: f[N, D], the features of real examples.
      generated: f[M, D], the features of generated examples.
      neighbours: k, the index of the neighbour that a ball reaches to.

    Returns:
      Precision and recall.

    Raises:
      UserError: if the arrays are not [N, D] and [M, D], a feature is not finite, k < 1, or a set
        has fewer than k + 1 points.
    """
    if neighbours < 1:
        raise UserError(f"neighbours is {neighbours}: give 1 or more")
    real, generated = _checked(real, generated, least=neighbours + 1)
    return _covered(generated, real, neighbours), _covered(real, generated, neighbours)


def spread(features: np.ndarray) -> float:
    """Returns the mean distance between two different examples, from features f[N, D].

    It is large for varied examples and small for copies of a few prototypes. A classifier's
    confidence does not distinguish these cases.
    """
    features, _ = _checked(features, features, least=2)
    total = sum(float(np.sqrt(squares(rows, features)).sum()) for rows in _blocks(features))
    return total / (len(features) * (len(features) - 1))


def nearest_distance(queries: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Returns the Euclidean distance of each query to the nearest real example, f64[Q].

    Args:
      queries: f[Q, *event], the examples to find neighbours of.
      real: f[N, *event], real examples.
    """
    x, y = (np.asarray(a, np.float32).reshape(len(a), -1) for a in (queries, real))
    x, y = _checked(x, y, least=1)
    norms, found = np.sum(np.square(y), axis=1), []
    for rows in _blocks(x):
        # The nearest example is found in float32, and its distance is computed in float64.
        closest = (norms[None] - 2.0 * (rows @ y.T)).argmin(axis=1)
        gap = rows.astype(np.float64) - y[closest]
        found.append(np.sqrt(np.sum(np.square(gap), axis=1)))
    return np.concatenate(found)


def squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the squared distances of all pairs of rows of x f[N, D] and y f[M, D], f[N, M].

    Identical rows have distance exactly 0.
    """
    found = np.sum(np.square(x), axis=1)[:, None] + np.sum(np.square(y), axis=1)[None]
    found -= 2.0 * (x @ y.T)
    # Rounding can give identical rows a small nonzero distance, so small distances are set to 0.
    floor = 64 * np.finfo(found.dtype).eps * np.max(found, initial=0.0)
    return np.where(found > floor, found, 0.0)


def _covered(queries: np.ndarray, members: np.ndarray, neighbours: int) -> float:
    """Returns the share of queries that lie in the region that a set covers.

    Args:
      queries: f[Q, D], the features of the queries.
      members: f[N, D], the features of the set, see `precision_recall`.
      neighbours: k, the index of the neighbour that a ball reaches to.
    """

    def reach(rows: np.ndarray) -> np.ndarray:
        # Entry 0 is the distance of the point to itself.
        return np.partition(squares(rows, members), neighbours, axis=1)[:, neighbours]

    radius = np.concatenate([reach(rows) for rows in _blocks(members)])
    inside = [np.any(squares(rows, members) <= radius[None], axis=1) for rows in _blocks(queries)]
    return float(np.mean(np.concatenate(inside)))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def _square_root(matrix: np.ndarray) -> np.ndarray:
    """Returns the square root of a positive semidefinite symmetric matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def _blocks(x: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(x), BLOCK):
        yield x[start : start + BLOCK]


def _checked(real: Any, generated: Any, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Checks two sets of features and returns them as arrays, keeping their dtypes.

    Raises:
      UserError: if they are not [N, D] and [M, D], N or M is below `least`, or a feature is not
        finite.
    """
    first, second = (np.asarray(x) for x in (real, generated))
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise UserError(
            f"features of shape {first.shape} and {second.shape} cannot be compared: give [N, D] "
            "and [M, D], with the same D"
        )
    if min(len(first), len(second)) < least:
        raise UserError(
            f"{len(first)} and {len(second)} examples are too few: give {least} or more of each"
        )
    if not (np.all(np.isfinite(first)) and np.all(np.isfinite(second))):
        raise UserError(
            "some features are NaN or infinite: check the examples and the function that computes "
            "the features"
        )
    return first, second
