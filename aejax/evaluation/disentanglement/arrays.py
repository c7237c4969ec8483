"""What every metric of disentanglement does with its arrays: check them, number the values."""

from __future__ import annotations

from typing import Any

import numpy as np

from aejax.checks import whole
from aejax.errors import UserError
from aejax.optional import needs


def checked(codes: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes f64[N, L], and factors i64[N, F] whose values are numbered from 0.

    Raises:
      UserError: if the shapes do not belong together, a code is not finite, there is one factor
        only, or a factor has one value.
    """
    codes, factors = np.asarray(codes, np.float64), np.asarray(factors)
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors):
        raise UserError(
            f"codes {codes.shape} and factors {factors.shape} do not belong together: give [N, L] "
            "and [N, F]"
        )
    if not np.all(np.isfinite(codes)):
        raise UserError("some codes are not finite: a metric needs those of a trained model")
    numbered = [np.unique(column, return_inverse=True)[1] for column in factors.T]
    for k, column in enumerate(numbered):
        if column.max() < 1:
            raise UserError(f"factor {k} has one value, which no code can tell: leave it out")
    if len(numbered) < 2:
        raise UserError("there is one factor only: disentanglement is told between 2 or more")
    return codes, np.stack(numbered, axis=1)


def check_counts(**counts: int) -> None:
    """Raises UserError for the first of the named numbers that is not whole, or below 1."""
    for name, count in counts.items():
        if not whole(count) or count < 1:
            raise UserError(f"{name} is {count}: give a whole number, 1 or more")


def subset(size: int, most: int, generator: np.random.Generator) -> np.ndarray:
    """At most so many of `size` rows, in random order, each at most once, i64[n]."""
    return generator.permutation(size)[:most]


def gap(scores: np.ndarray) -> np.ndarray:
    """The best latent's score less the second's, f64[F], for scores f64[L, F]."""
    # One latent alone has no rival.
    padded = np.concatenate([scores, np.zeros((1, scores.shape[1]))]) if len(scores) < 2 else scores
    ordered = np.sort(padded, axis=0)
    return ordered[-1] - ordered[-2]


def learn(module: str) -> Any:
    """A module of scikit-learn.

    Raises:
      UserError: if it is not installed.
    """
    return needs(f"sklearn.{module}", "this metric")
