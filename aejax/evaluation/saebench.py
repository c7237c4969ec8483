"""The `core` measures of SAEBench, including its mistakes, to compare with its published tables.

Correct measures are in aejax.evaluation.sparsity. SAEBench's explained variance divides by a wrong
total variance: for data of 64 dimensions with mean 3 and standard deviation 0.3, predicting the
mean scores 0.9885 instead of 0. All of these measures depend on how the tokens are divided into
batches.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from aejax.errors import UserError


class SAEBench(NamedTuple):
    """SAEBench's measures, under its names with the prefix `saebench_`; e is x - x_hat."""

    saebench_explained_variance: float  # 1 - E||e||^2 / (E||x||^2 - (mean of x_ij^2)^2)
    saebench_explained_variance_legacy: float  # mean over tokens of 1 - ||e||^2 / ||x - mean||^2
    saebench_mse: float  # mean over tokens of ||e||^2 divided by the size of the token's batch
    saebench_cossim: float  # mean cosine; NaN if any reconstruction is zero
    saebench_l2_ratio: float  # mean over tokens of ||x_hat|| / ||x||
    # Mean over the batches of E||x_hat||^2 / E<x, x_hat>, computed in each batch.
    saebench_relative_reconstruction_bias: float


def saebench(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> SAEBench:
    """Computes SAEBench's reconstruction measures (sae_bench/evals/core/main.py, revision 8042bb3).

    Args:
      batches: pairs of targets f[B, d] and predictions f[B, d].

    Raises:
      UserError: if there is no batch.
    """
    # For each batch f64[B, 4]: legacy explained variance, squared error, cosine and norm ratio.
    tokens: list[np.ndarray] = []
    means: list[tuple[float, ...]] = []
    for target, prediction in batches:
        x, y = np.asarray(target, np.float64), np.asarray(prediction, np.float64)
        error = np.sum(np.square(x - y), axis=1)
        spread = np.sum(np.square(x - x.mean(axis=0)), axis=1)
        long, short = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
        product = np.sum(x * y, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            cosine, legacy = product / (long * short), 1.0 - error / spread
        ratio = short / np.where(long < 1e-4, 1.0, long)
        tokens.append(np.stack([legacy, error / len(x), cosine, ratio], axis=1))
        square = np.square(x)
        bias = np.mean(np.square(short)) / np.mean(product)
        means.append((square.sum(axis=1).mean(), square.mean(), error.mean(), bias))
    if not tokens:
        raise UserError("there are no tokens to measure: give one batch or more")
    legacy, mse, cosine, ratio = np.concatenate(tokens).mean(axis=0).tolist()
    # SAEBench subtracts the square of the mean square here, instead of the square of the mean.
    squares, mean_square, residual, bias = np.mean(means, axis=0).tolist()
    explained = 1.0 - residual / (squares - mean_square**2)
    return SAEBench(explained, legacy, mse, cosine, ratio, bias)
