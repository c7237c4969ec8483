"""Disentanglement metrics based on predicting factors from latents: DCI and SAP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from aejax.evaluation.disentanglement.arrays import check_counts, checked, gap, scikit_learn, subset


class Dci(NamedTuple):
    """Disentanglement, completeness and informativeness (Eastwood and Williams 2018)."""

    disentanglement: float  # 1 if each latent predicts one factor only, 0 if all factors equally
    completeness: float  # 1 if each factor is predicted by one latent only, 0 if by all equally
    informativeness: float  # the accuracy on held-out examples, averaged over the factors
    importance: np.ndarray  # f64[L, F], the importance of each latent in predicting each factor


def dci(
    codes: np.ndarray,
    factors: np.ndarray,
    *,
    train: int = 10_000,
    test: int = 5_000,
    seed: int = 0,
    classifier: Callable[[], Any] | None = None,
) -> Dci:
    """Computes disentanglement, completeness and informativeness (Eastwood and Williams 2018).

    Args:
      codes: f[N, L], the posterior means.
      factors: i[N, F], the factors of variation.
      train: the largest number of examples to train the classifiers on, at most two thirds of all.
      test: the largest number of other examples to test them on.
      seed: the seed of the split.
      classifier: a function that returns a new classifier with fit, score and feature_importances_;
        None: scikit-learn's gradient boosted trees, as in disentanglement_lib.
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
    return scikit_learn("ensemble").GradientBoostingClassifier(random_state=0)


def sap_of_regression(codes: np.ndarray, factors: np.ndarray) -> float:
    """Computes the SAP score as the gap in R^2 between the two best latents (Kumar et al. 2018).

    The gap is averaged over the factors. Factor values are treated as real numbers, so leave out
    categorical factors. The score is 1 for perfect codes, and about 0 for codes that do not depend
    on the factors.

    Args:
      codes: f[N, L], the posterior means.
      factors: i[N, F] or f[N, F], the factors of variation, with evenly spaced values.
    """
    codes, factors = checked(codes, factors)
    centred, target = codes - codes.mean(axis=0), factors - factors.mean(axis=0)
    covariance = centred.T @ target / len(codes)
    product = np.outer(centred.var(axis=0), target.var(axis=0))
    varying = product > 1e-12
    return float(
        np.mean(gap(np.where(varying, covariance**2 / np.where(varying, product, 1.0), 0.0)))
    )


def sap_of_threshold(
    codes: np.ndarray,
    factors: np.ndarray,
    *,
    train: int = 10_000,
    test: int = 5_000,
    seed: int = 0,
) -> float:
    """Computes the SAP score as the gap in accuracy between the two best latents.

    For each latent and factor, a class-balanced linear support vector machine predicts the factor
    from this latent alone, as in disentanglement_lib for discrete factors (Kumar et al. 2018). Even
    a perfect code scores less than 1, because predictions from the second-best latent are sometimes
    correct by chance, and because a linear classifier of one latent can separate only two classes.

    Args:
      codes: f[N, L], the posterior means.
      factors: i[N, F], the factors of variation.
      train: the largest number of examples to train the classifiers on, at most two thirds of all.
      test: the largest number of other examples to test them on.
      seed: the seed of the split.
    """
    codes, factors = checked(codes, factors)
    machines = scikit_learn("svm")
    learned, judged = _split(len(codes), train, test, seed)
    scores = np.zeros((codes.shape[1], factors.shape[1]))
    for j in range(codes.shape[1]):
        for k, values in enumerate(factors.T):
            machine = machines.LinearSVC(C=0.01, class_weight="balanced", random_state=0)
            machine.fit(codes[learned, j : j + 1], values[learned])
            scores[j, k] = machine.score(codes[judged, j : j + 1], values[judged])
    return float(np.mean(gap(scores)))


def _split(size: int, train: int, test: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of training examples and of other test examples, i64[n] each."""
    check_counts(train=train, test=test)
    order = subset(size, size, np.random.default_rng(seed))
    learned = min(train, size * 2 // 3)
    return order[:learned], order[learned : learned + test]


def _concentration(importance: np.ndarray) -> float:
    """Returns how far each row is from uniform, as a mean over the rows weighted by their sums.

    The score of a row is 1 - H(row / sum of the row) / log(columns): 1 if only one entry is
    nonzero, 0 if all entries are equal.
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
