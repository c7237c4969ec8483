"""Sparse probing: how well a few latents, chosen by their means, predict a label.

    few = probe(train_codes, train_labels, test_codes, test_labels, k=16)
    dense = probe(train_x, train_labels, test_x, test_labels)     # all columns
    few.accuracy / dense.accuracy

After Gurnee et al. 2023 and SAEBench: for each class against all others, the k columns whose means
differ most between the two are chosen on the train examples, and a logistic regression of these
columns is scored on the test examples by balanced accuracy, for which chance is 0.5. A probe of all
columns would fit noise, so its ridge penalty is chosen on a quarter of the train examples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aejax.errors import UserError
from aejax.evaluation.logistic import RIDGE, balanced_accuracy, logistic

RIDGES = (1.0, 30.0, 1e3, 3e4)  # the ridge penalties among which a dense probe's is chosen
TUNED = 6  # the penalty is chosen by the scores of this many classes, the most frequent ones
FEWEST = 20  # the fewest examples of a class, in train and in test, for which it is probed


class Probe(NamedTuple):
    """The results of one probe for each of C classes."""

    accuracy: float  # the mean balanced accuracy of the classes
    each: np.ndarray  # f64[C], the balanced accuracy of each class
    classes: np.ndarray  # i64[C], the labels that are probed: those with enough examples
    columns: tuple[np.ndarray, ...]  # for each class the chosen columns, the best first
    ridge: float  # the factor of the ridge penalty


def probe(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    k: int | None = None,
    fewest: int = FEWEST,
) -> Probe:
    """Fits a classifier of k columns for each class, and scores it on test examples.

    Args:
      train: f[N, M], activations of the train examples.
      train_labels: i[N], their labels from 0; examples with a negative label are left out.
      test: f[n, M], activations of the test examples.
      test_labels: i[n], their labels.
      k: the number of columns for each class; None: all.
      fewest: a class with fewer train or test examples is left out.

    Raises:
      UserError: if the shapes do not fit, k is out of range, or no class has enough examples.
    """
    train, train_labels = _labelled(train, train_labels)
    test, test_labels = _labelled(test, test_labels)
    if train.shape[1] != test.shape[1]:
        raise UserError(
            f"train has {train.shape[1]} columns and test {test.shape[1]}: give the activations "
            "of the same units"
        )
    if k is not None and not 1 <= k <= train.shape[1]:
        raise UserError(
            f"k is {k}: give a number from 1 to {train.shape[1]}, the number of columns"
        )
    classes = enough(train_labels, test_labels, fewest)
    if not len(classes):
        raise UserError(f"no class has {fewest} examples in train and in test: give more examples")
    ridge = RIDGE if k is not None else _ridge(train, train_labels, classes)
    each, chosen = [], []
    for label in classes:
        y = train_labels == label
        columns = np.arange(train.shape[1]) if k is None else best_columns(train, y, k)
        fit = logistic(train[:, columns], y, ridge)
        each.append(balanced_accuracy(fit.score(test[:, columns]) > 0, test_labels == label))
        chosen.append(columns)
    return Probe(float(np.mean(each)), np.array(each), classes, tuple(chosen), ridge)


def _ridge(x: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> float:
    """Returns the one of RIDGES with which probes score best on the last quarter of the examples.

    The probes are fitted on the other examples, for the TUNED most frequent classes.
    """
    fitted = np.arange(len(x)) < len(x) * 3 // 4
    counts = np.bincount(labels, minlength=int(classes.max()) + 1)
    common = classes[np.argsort(-counts[classes], kind="stable")][:TUNED]
    scores = []
    for ridge in RIDGES:
        each = []
        for label in common:
            y = labels == label
            if len({*y[fitted].tolist()}) == 2:
                fit = logistic(x[fitted], y[fitted], ridge)
                each.append(balanced_accuracy(fit.score(x[~fitted]) > 0, y[~fitted]))
        scores.append(np.nanmean(each) if not np.all(np.isnan(each)) else 0.0)
    return RIDGES[int(np.argmax(scores))]


def enough(train_labels: np.ndarray, test_labels: np.ndarray, fewest: int) -> np.ndarray:
    """Returns the labels that have at least `fewest` examples in both arrays, i64[C]."""
    size = int(max(train_labels.max(initial=-1), test_labels.max(initial=-1))) + 1
    counts = [np.bincount(labels, minlength=size) for labels in (train_labels, test_labels)]
    return np.flatnonzero(np.minimum(*counts) >= fewest)


def best_columns(x: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """Returns the k columns whose means differ most between two classes, the best first, i64[k].

    The difference is divided by the column's standard deviation, so that it does not depend on the
    scale of a unit.

    Args:
      x: f[N, M], activations.
      y: bool[N], whether each example is of the class.
      k: the number of columns.
    """
    apart = np.abs(x[y].mean(axis=0, dtype=np.float64) - x[~y].mean(axis=0, dtype=np.float64))
    spread = x.std(axis=0, dtype=np.float64)
    score = np.where(spread > 0, apart / np.where(spread > 0, spread, 1.0), 0.0)
    return np.argsort(-score, kind="stable")[:k]


def _labelled(x: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, labels = np.asarray(x), np.asarray(labels, np.int64)
    if x.ndim != 2 or labels.shape != x.shape[:1]:
        raise UserError(
            f"activations of shape {x.shape} and labels of shape {labels.shape} do not belong "
            "together: give [N, M] and [N], for the same N examples"
        )
    there = labels >= 0
    return (x, labels) if there.all() else (x[there], labels[there])
