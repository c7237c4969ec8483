"""Helpers of the disentanglement metrics: checks of arrays and arguments, and common steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from aejax.checks import whole
from aejax.errors import UserError
from aejax.optional import needs


def checked(codes: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns codes as f64[N, L], and factors as i64[N, F], whose values are indices from 0.

    Raises:
      UserError: if the arrays are not [N, L] and [N, F], a code is not finite, there is only one
        factor, or a factor has only one value.
    """
    codes, factors = np.asarray(codes, np.float64), np.asarray(factors)
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors):
        raise UserError(
            f"codes have shape {codes.shape} and factors {factors.shape}: give [N, L] and [N, F], "
            "for the same N examples"
        )
    if not np.all(np.isfinite(codes)):
        raise UserError("some codes are NaN or infinite: use a model whose training succeeded")
    numbered = [np.unique(column, return_inverse=True)[1] for column in factors.T]
    for k, column in enumerate(numbered):
        if column.max() < 1:
            raise UserError(f"factor {k} has only one value in the data: leave this factor out")
    if len(numbered) < 2:
        raise UserError("there is only one factor: disentanglement needs 2 or more")
    return codes, np.stack(numbered, axis=1)


def check_counts(**counts: int) -> None:
    """Raises UserError if an argument is not a whole number of 1 or more; the message names it."""
    for name, count in counts.items():
        if not whole(count) or count < 1:
            raise UserError(f"{name} is {count}: give a whole number of 1 or more")


def subset(size: int, most: int, generator: np.random.Generator) -> np.ndarray:
    """Draws at most `most` of the indices 0 to size - 1, without replacement, i64[n]."""
    return generator.permutation(size)[:most]


def gap(scores: np.ndarray) -> np.ndarray:
    """Returns, for each factor, the largest score of a latent minus the second largest, f64[F].

    Args:
      scores: f64[L, F], the score of each latent for each factor.
    """
    # If there is only one latent, the second-best score is 0.
    padded = np.concatenate([scores, np.zeros((1, scores.shape[1]))]) if len(scores) < 2 else scores
    ordered = np.sort(padded, axis=0)
    return ordered[-1] - ordered[-2]


def scikit_learn(module: str) -> Any:
    """Imports a module of scikit-learn and returns it.

    Args:
      module: the name of the module within sklearn, such as "svm".

    Raises:
      UserError: if scikit-learn is not installed.
    """
    return needs(f"sklearn.{module}", "this metric")
