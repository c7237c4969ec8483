"""Bits per sample of sounds under predictors that need no training by gradients."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from aejax.data import Split
from aejax.sound import expand, mu_law

SIZE = 256


class Levels(NamedTuple):
    """Sounds as mu-law levels, and which samples belong to each sound."""

    values: np.ndarray  # i64[N, T], from 0 to SIZE - 1
    inside: np.ndarray  # bool[N, T], False after the end of a sound

    @classmethod
    def of(cls, split: Split) -> Levels:
        """Reads all sounds of a split whose batches hold mu-law values."""
        batch = next(split.batches(len(split)))
        values = np.round(np.asarray(batch.target)[..., 0] * (SIZE - 1)).astype(np.int64)
        return cls(values, np.asarray(batch.mask)[..., 0] > 0)


def histogram(train: Levels, test: Levels) -> float:
    """Returns the bits per sample of `test` under the histogram of `train`, plus 1 in each bin."""
    return _cost(train.values[train.inside], test.values[test.inside], SIZE)


def linear(train: Levels, test: Levels, order: int) -> float:
    """Returns the bits per sample of `test` under a linear predictor fitted to `train`.

    Two predictors of a sample from the `order` samples before it are fitted by least squares: one
    of mu-law levels, one of the waveform. The probability of a prediction error, rounded to levels,
    is its frequency in `train`, with 1 added to each count. The predictor that needs fewer bits on
    `train` is used.
    """
    costs = []
    for waves in (False, True):
        weights, own = None, []
        for part in (train, test):
            x = part.values / (SIZE - 1.0)
            x = np.asarray(expand(jnp.asarray(x)), np.float64) if waves else 2.0 * x - 1.0
            padded = np.pad(x, ((0, 0), (order, 0)))
            past = np.lib.stride_tricks.sliding_window_view(padded, order, axis=1)[:, :-1]
            past, now = past[part.inside], x[part.inside]
            if weights is None:
                weights = np.linalg.solve(past.T @ past + 1e-9 * np.eye(order), past.T @ now)
            guess = past @ weights
            guess = np.asarray(mu_law(jnp.asarray(guess))) if waves else 0.5 * (guess + 1.0)
            level = np.clip(np.round(guess * (SIZE - 1)), 0, SIZE - 1).astype(np.int64)
            own.append(part.values[part.inside] - level + SIZE)
        costs.append((_cost(own[0], own[0], 2 * SIZE), _cost(own[0], own[1], 2 * SIZE)))
    return min(costs)[1]


def _cost(train: np.ndarray, test: np.ndarray, size: int) -> float:
    counts = np.bincount(train, minlength=size) + 1.0
    return float(-np.log2(counts / counts.sum())[test].mean())
