"""Compares the angles and norms of reconstructions with those of targets, in float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Fidelity(NamedTuple):
    """Sums over examples, each f64[]; the sums of several sets of examples can be added.

    Here x is a target and x_hat its reconstruction.
    """

    examples: float  # the number of examples with a nonzero target
    cosine: float  # the sum of cosines of x and x_hat, 0 where x_hat is zero
    ratio: float  # the sum of ||x_hat|| / ||x||
    square: float  # the sum of ||x_hat||^2
    product: float  # the sum of <x, x_hat>

    def mean_cosine(self) -> float:
        """Returns the mean cosine between x and x_hat, or NaN if there is no example."""
        return self.cosine / self.examples if self.examples else float("nan")

    def l2_ratio(self) -> float:
        """Returns the mean of ||x_hat|| / ||x||, below 1 if reconstructions are too short."""
        return self.ratio / self.examples if self.examples else float("nan")

    def relative_bias(self) -> float:
        """Returns E||x_hat||^2 / E<x, x_hat> (Rajamanoharan et al. 2024, equation 10).

        It is below 1 if reconstructions are too short.
        """
        return self.square / self.product if self.product else float("nan")


def fidelity(
    target: np.ndarray, prediction: np.ndarray, mask: np.ndarray | None = None
) -> Fidelity:
    """Computes the sums of cosines, norms and inner products over B examples.

    Args:
      target: [B, *event]; examples whose target is zero are left out of the cosine and the ratio.
      prediction: [B, *event], the reconstructions.
      mask: weights that broadcast to target, 0 for missing elements; or None.
    """
    flat = (len(target), -1)
    x = np.asarray(target, np.float64)
    y = np.asarray(prediction, np.float64)
    if mask is not None:
        kept = np.broadcast_to(np.asarray(mask, np.float64), x.shape)
        x, y = x * kept, y * kept
    x, y = x.reshape(flat), y.reshape(flat)
    long, short = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    product, there = np.sum(x * y, axis=1), long > 0
    cosine = product[there] / np.where(short > 0, long * short, 1.0)[there]
    sums = (cosine, short[there] / long[there], np.square(short), product)
    return Fidelity(float(there.sum()), *(float(np.sum(values)) for values in sums))


def added(a: Fidelity, b: Fidelity) -> Fidelity:
    """Adds the sums of two sets of examples."""
    return Fidelity(*(x + y for x, y in zip(a, b, strict=True)))
