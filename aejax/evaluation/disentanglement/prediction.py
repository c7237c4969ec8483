"""Metrics from how well factors are predicted from latents: DCI and SAP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from aejax.evaluation.disentanglement.arrays import check_counts, checked, gap, learn, subset


class Dci(NamedTuple):
    """Three sides of one prediction (Eastwood and Williams 2018)."""

    disentanglement: float  # does a latent serve one factor: 1, or all alike: 0
    completeness: float  # is a factor served by one latent: 1, or by all alike: 0
    informativeness: float  # accuracy on held-out examples, mean over the factors
    importance: np.ndarray  # f64[L, F], of each latent in predicting each factor


def dci(
    codes: np.ndarray,
    factors: np.ndarray,
    *,
    train: int = 10_000,
    test: int = 5_000,
    seed: int = 0,
    classifier: Callable[[], Any] | None = None,
) -> Dci:
    """Disentanglement, completeness, informativeness (Eastwood and Williams 2018, section 2).

    Args:
      codes: f[N, L], posterior means.
      factors: i[N, F].
      train: at most so many examples that the classifiers learn from; never more than two thirds.
      test: at most so many others that they are judged by.
      seed: of the split.
      classifier: makes one with fit, score and feature_importances_; None: scikit-learn's gradient
        boosted trees, as in disentanglement_lib.
    """
    codes, factors = checked(codes, factors)
    make = _boosted_trees if classifier is None else classifier
    learned, judged = _split(len(codes), train, test, seed)
    importance, accuracy = np.zeros((codes.shape[1], factors.shape[1])), []
    for k, values in enumerate(factors.T):
        fitted = make()
        fitted.fit(codes[learned], values[learned])
        importance[:, k] = np.abs(fitted.feature_importances_)
        accuracy.append(fitted.score(codes[judged], values[judged]))
    return Dci(
        disentanglement=_concentration(importance),
        completeness=_concentration(importance.T),
        informativeness=float(np.mean(accuracy)),
        importance=importance,
    )


def _boosted_trees() -> Any:
    return learn("ensemble").GradientBoostingClassifier(random_state=0)


def sap_of_regression(codes: np.ndarray, factors: np.ndarray) -> float:
    """The gap between the two latents that predict a factor best, by R^2 (Kumar et al. 2018).

    Mean over the factors. Reads the factors' values as magnitudes on a line: leave out those that
    are none. 1 for perfect codes, about 0 for independent ones.

    Args:
      codes: f[N, L], posterior means.
      factors: i[N, F] or f[N, F], evenly spaced in the order of their values.
    """
    codes, factors = checked(codes, factors)
    centred, target = codes - codes.mean(axis=0), factors - factors.mean(axis=0)
    covariance = centred.T @ target / len(codes)
    product = np.outer(centred.var(axis=0), target.var(axis=0))
    told = product > 1e-12
    return float(np.mean(gap(np.where(told, covariance**2 / np.where(told, product, 1.0), 0.0))))


def sap_of_threshold(
    codes: np.ndarray,
    factors: np.ndarray,
    *,
    train: int = 10_000,
    test: int = 5_000,
    seed: int = 0,
) -> float:
    """The gap between the two latents that predict a factor best, by accuracy (Kumar et al. 2018).

    Each latent alone, by a balanced linear support vector machine, as disentanglement_lib does for
    discrete factors. A perfect code scores less than 1: the second latent is right by chance, and
    one line cuts one latent into two classes only.

    Args:
      codes: f[N, L], posterior means.
      factors: i[N, F].
      train: at most so many examples that the classifiers learn from; never more than two thirds.
      test: at most so many others that they are judged by.
      seed: of the split.
    """
    codes, factors = checked(codes, factors)
    machines = learn("svm")
    learned, judged = _split(len(codes), train, test, seed)
    scores = np.zeros((codes.shape[1], factors.shape[1]))
    for j in range(codes.shape[1]):
        for k, values in enumerate(factors.T):
            machine = machines.LinearSVC(C=0.01, class_weight="balanced", random_state=0)
            machine.fit(codes[learned, j : j + 1], values[learned])
            scores[j, k] = machine.score(codes[judged, j : j + 1], values[judged])
    return float(np.mean(gap(scores)))


def _split(size: int, train: int, test: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from and others to be judged by, i64[n] each."""
    check_counts(train=train, test=test)
    order = subset(size, size, np.random.default_rng(seed))
    learned = min(train, size * 2 // 3)
    return order[:learned], order[learned : learned + test]


def _concentration(importance: np.ndarray) -> float:
    """How far each row is from even, mean over the rows weighed by their sums.

    A row's figure is 1 - H(its shares) / log(columns): 1 with one entry, 0 where all are alike.
    """
    total, columns = importance.sum(), importance.shape[1]
    if total == 0:
        return 0.0
    if columns == 1:
        return 1.0
    rows = importance.sum(axis=1)
    share = importance / np.where(rows > 0, rows, 1.0)[:, None]
    entropy = -np.sum(share * np.log(np.where(share > 0, share, 1.0)), axis=1)
    return float(np.sum((1.0 - entropy / np.log(columns)) * rows / total))
