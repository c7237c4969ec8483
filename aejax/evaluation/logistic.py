"""Logistic regression with balanced classes, by Newton's method in float64.

fit = logistic(x, y)                     # x f[N, M], y bool[N]
fit.score(other) > 0                     # bool[n]
balanced_accuracy(fit.score(other) > 0, truth)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aejax.errors import UserError

RIDGE = 1.0  # the penalty on the squared weights of standardised columns, as in scikit-learn
STEPS = 30  # the most steps of Newton's method
WIDE = 64  # with more columns than this, the curvature is computed in float32


class Logistic(NamedTuple):
    """A fitted model: log-odds = x weights + bias."""

    weights: np.ndarray  # f64[M]
    bias: float

    def score(self, x: np.ndarray) -> np.ndarray:
        """Returns the log-odds of examples f[n, M], f64[n]."""
        return np.asarray(x, np.float64) @ self.weights + self.bias


def logistic(x: np.ndarray, y: np.ndarray, ridge: float = RIDGE) -> Logistic:
    """Fits a logistic regression in which both classes have the same total weight.

    The columns are standardised for the fit, so the result does not depend on their scale; constant
    columns get the weight 0.

    Args:
      x: f[N, M], the features of the examples.
      y: bool[N], whether each example is of the class.
      ridge: the penalty is this number times half the squared norm of the weights; the bias is not
        penalised.

    Raises:
      UserError: if the shapes do not fit, or one of the two classes has no example.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, bool)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise UserError(f"features {x.shape} and labels {y.shape}: give [N, M] and [N]")
    if y.all() or not y.any():
        raise UserError("all examples are of one class: a classifier needs examples of both")
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 1e-12 * (np.abs(mean) + 1e-30), scale, np.inf)
    z = np.concatenate([(x - mean) / scale, np.ones((len(x), 1))], axis=1)
    weight = np.where(y, 0.5 / y.sum(), 0.5 / (~y).sum()) * len(y)
    penalty = np.append(np.full(x.shape[1], ridge), 1e-9)
    sign = np.where(y, 1.0, -1.0)

    def loss(w: np.ndarray) -> float:
        return float(weight @ np.logaddexp(0.0, -sign * (z @ w)) + 0.5 * penalty @ np.square(w))

    # The curvature of many columns takes most of the time and needs no more than float32: an error
    # in it makes Newton's method slower, but does not move the point at which the gradient is 0.
    rows = z.astype(np.float32) if x.shape[1] > WIDE else z
    w = np.zeros(z.shape[1])
    value = loss(w)
    for _ in range(STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(z @ w, -60, 60)))
        gradient = z.T @ (weight * (p - y)) + penalty * w
        bend = (weight * p * (1.0 - p)).astype(rows.dtype)
        curve = (rows * bend[:, None]).T @ rows + np.diag(penalty)
        step = np.linalg.solve(curve, gradient)
        size = 1.0
        while (new := loss(w - size * step)) > value and size > 1e-6:
            size /= 2
        w, gain, value = w - size * step, value - new, min(value, new)
        if gain < 1e-9 * len(y):
            break
    weights = w[:-1] / scale
    return Logistic(weights, float(w[-1] - mean @ weights))


def balanced_accuracy(found: np.ndarray, truth: np.ndarray) -> float:
    """Returns the mean of the shares of positives and of negatives that are classified correctly.

    Args:
      found: bool[N], whether each example is classified as positive.
      truth: bool[N], whether each example is positive; if all are, or none is, the result is NaN.
    """
    found, truth = np.asarray(found, bool), np.asarray(truth, bool)
    if truth.all() or not truth.any():
        return float("nan")
    return 0.5 * float(found[truth].mean() + (~found)[~truth].mean())
