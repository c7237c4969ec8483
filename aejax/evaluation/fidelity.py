"""How like its target a reconstruction is: angle, length and shrinkage, summed in float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Fidelity(NamedTuple):
    """Sums over the examples seen so far; all f64[]. Those of two chunks are added."""

    examples: float  # whose target is not zero
    cosine: float  # of x and x_hat; 0 where x_hat is zero
    ratio: float  # ||x_hat|| / ||x||
    square: float  # ||x_hat||^2
    product: float  # <x, x_hat>

    def mean_cosine(self) -> float:
        """Mean cosine between target and prediction; NaN without an example."""
        return self.cosine / self.examples if self.examples else float("nan")

    def l2_ratio(self) -> float:
        """Mean ||x_hat|| / ||x||, below 1 where the reconstruction shrinks."""
        return self.ratio / self.examples if self.examples else float("nan")

    def relative_bias(self) -> float:
        """E||x_hat||^2 / E<x, x_hat>, 1 without shrinkage (Rajamanoharan et al. 2024, eq. 10)."""
        return self.square / self.product if self.product else float("nan")


def fidelity(
    target: np.ndarray, prediction: np.ndarray, mask: np.ndarray | None = None
) -> Fidelity:
    """The sums of one chunk.

    Args:
      target, prediction: [B, *event]; an example whose target is zero has neither angle nor ratio.
      mask: broadcasts to target, or None.
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
    """The sums of two chunks together."""
    return Fidelity(*(x + y for x, y in zip(a, b, strict=True)))
