"""How a digit is written, whichever it is: the ink of a picture and its slant."""

from __future__ import annotations

import numpy as np


def ink(images: np.ndarray) -> np.ndarray:
    """The sum of the pixels of f[N, H, W, 1], f64[N]."""
    return images.sum(axis=(1, 2, 3), dtype=np.float64)


def slant(images: np.ndarray) -> np.ndarray:
    """How far the ink moves to the right with each row upwards, by its second moments, f64[N]."""
    weights = images[..., 0].astype(np.float64)
    total = np.maximum(weights.sum(axis=(1, 2)), 1e-9)
    rows, columns = (np.arange(size, dtype=np.float64) for size in images.shape[1:3])
    y = (weights.sum(axis=2) @ rows) / total
    x = (weights.sum(axis=1) @ columns) / total
    dy = rows[None] - y[:, None]
    dx = columns[None] - x[:, None]
    across = np.einsum("nhw,nh,nw->n", weights, dy, dx) / total
    along = np.einsum("nhw,nh->n", weights, np.square(dy)) / total
    return -across / np.maximum(along, 1e-9)


def correlation_within(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> float:
    """Of x and y, deviations from the means of each group: f[N], f[N], i[N]."""
    count = np.maximum(np.bincount(groups), 1)
    x, y = (v - (np.bincount(groups, v) / count)[groups] for v in (x, y))
    return float(np.sum(x * y) / np.sqrt(np.sum(np.square(x)) * np.sum(np.square(y))))
