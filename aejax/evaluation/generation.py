"""How good and how varied generated examples are, by features of them and of real ones.

Each figure reads features f[N, D]: of whichever function one trusts. Fréchet and kernel distance
carry the name of that function: with Inception's features they are FID and KID, with those of a
small classifier of the data itself they are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from aejax.errors import UserError

BLOCK = 1024  # rows that are compared with all others at a time

Features = Callable[[np.ndarray], np.ndarray]  # examples f[B, *event] -> f[B, D]


class Quality(NamedTuple):
    """Generated examples beside real ones."""

    frechet: float  # squared Fréchet distance of two Gaussians fitted to the features
    kernel: float  # squared maximum mean discrepancy, without bias: it may be a little negative
    precision: float  # share of the generated that lie where real ones are
    recall: float  # share of the real that lie where generated ones are
    spread: float  # mean distance between two generated


def quality(
    features: Features,
    real: np.ndarray,
    generated: np.ndarray,
    *,
    neighbours: int = 3,
    batch: int = 500,
) -> Quality:
    """All figures of generated examples.

    Args:
      features: examples f[B, *event] -> f[B, D].
      real: f[N, *event]; figures of different sizes N and M are not comparable.
      generated: f[M, *event].
      neighbours: of precision and recall.
      batch: examples that the features are taken of at a time.
    """
    first, second = (taken(features, examples, batch) for examples in (real, generated))
    return Quality(
        frechet_distance(first, second),
        kernel_distance(first, second),
        *precision_recall(first, second, neighbours=neighbours),
        spread(second),
    )


def taken(features: Features, examples: np.ndarray, batch: int = 500) -> np.ndarray:
    """The features of all examples f[N, *event], f64[N, D]."""
    parts = [
        np.asarray(features(examples[start : start + batch]), np.float64)
        for start in range(0, len(examples), batch)
    ]
    return np.concatenate(parts)


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """|m - n|^2 + tr(S + T - 2 (S^1/2 T S^1/2)^1/2) of means and covariances.

    The squared 2-Wasserstein distance of two Gaussians (Dowson and Landau 1982), fitted to features
    (Heusel et al. 2017, equation 6). It is biased upwards by few examples.

    Args:
      real: f[N, D].
      generated: f[M, D].

    Raises:
      UserError: if the shapes do not belong together, or there are fewer than two of either.
    """
    real, generated = _checked(real, generated, least=2)
    gap = real.mean(axis=0) - generated.mean(axis=0)
    first, second = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (real, generated))
    root = _square_root(first)
    # The eigenvalues of S T, of a symmetric matrix that has the same.
    product = np.linalg.eigvalsh(root @ second @ root)
    middle = np.sum(np.sqrt(np.maximum(product, 0.0)))
    return float(gap @ gap + np.trace(first) + np.trace(second) - 2.0 * middle)


def kernel_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """The squared MMD under the kernel (x . y / D + 1)^3, without bias.

    Binkowski et al. 2018, section 4, as one estimate over all examples.

    Args:
      real: f[N, D].
      generated: f[M, D].

    Raises:
      UserError: as `frechet_distance`.
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
    """Improved precision and recall (Kynkäänniemi et al. 2019, equations 1 and 2).

    A set covers what lies in the ball about one of its members that reaches to that member's k-th
    nearest other one. Precision is the share of the generated that the real cover, recall the share
    of the real that the generated cover.

    Args:
      real: f[N, D].
      generated: f[M, D].
      neighbours: k.

    Returns:
      Precision and recall.

    Raises:
      UserError: as `frechet_distance`, or if k < 1 or a set has no k others.
    """
    if neighbours < 1:
        raise UserError(f"neighbours is {neighbours}: give 1 or more")
    real, generated = _checked(real, generated, least=neighbours + 1)
    return _covered(generated, real, neighbours), _covered(real, generated, neighbours)


def spread(features: np.ndarray) -> float:
    """The mean distance between two different examples, of features f[N, D].

    It tells prototypes, which a classifier recognises as well, from varied examples.
    """
    features, _ = _checked(features, features, least=2)
    total = sum(float(np.sqrt(squares(rows, features)).sum()) for rows in _blocks(features))
    return total / (len(features) * (len(features) - 1))


def nearest_distance(queries: np.ndarray, real: np.ndarray) -> np.ndarray:
    """The Euclidean distance of each query f[Q, *event] to the closest of f[N, *event], f64[Q]."""
    x, y = (np.asarray(a, np.float32).reshape(len(a), -1) for a in (queries, real))
    x, y = _checked(x, y, least=1)
    norms, found = np.sum(np.square(y), axis=1), []
    for rows in _blocks(x):
        # Which is closest is looked up in single precision, how far it is in double.
        closest = (norms[None] - 2.0 * (rows @ y.T)).argmin(axis=1)
        gap = rows.astype(np.float64) - y[closest]
        found.append(np.sqrt(np.sum(np.square(gap), axis=1)))
    return np.concatenate(found)


def squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared distances between rows, f[N, M]; 0 where a row meets itself."""
    found = np.sum(np.square(x), axis=1)[:, None] + np.sum(np.square(y), axis=1)[None]
    found -= 2.0 * (x @ y.T)
    # Round-off leaves about 1e-16 of the norms, whose root would be a distance of 1e-8.
    floor = 64 * np.finfo(found.dtype).eps * np.max(found, initial=0.0)
    return np.where(found > floor, found, 0.0)


def _covered(queries: np.ndarray, members: np.ndarray, neighbours: int) -> float:
    """The share of queries that lie in the ball of any member."""

    def reach(rows: np.ndarray) -> np.ndarray:
        # A member is its own closest one.
        return np.partition(squares(rows, members), neighbours, axis=1)[:, neighbours]

    radius = np.concatenate([reach(rows) for rows in _blocks(members)])
    inside = [np.any(squares(rows, members) <= radius[None], axis=1) for rows in _blocks(queries)]
    return float(np.mean(np.concatenate(inside)))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def _square_root(matrix: np.ndarray) -> np.ndarray:
    """Of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def _blocks(x: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(x), BLOCK):
        yield x[start : start + BLOCK]


def _checked(real: Any, generated: Any, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Both sets, whose float dtype stays."""
    first, second = (np.asarray(x) for x in (real, generated))
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise UserError(
            f"features {first.shape} and {second.shape} do not belong together: give [N, D] and "
            "[M, D]"
        )
    if min(len(first), len(second)) < least:
        raise UserError(
            f"{len(first)} and {len(second)} examples are too few: give {least} or more of each"
        )
    if not (np.all(np.isfinite(first)) and np.all(np.isfinite(second))):
        raise UserError("some features are not finite: look at the examples that they are of")
    return first, second
