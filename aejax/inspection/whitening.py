"""Principal components of patch features, scaled to variance 1."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.inspection.detector import State
from aejax.types import Array

ROWS = 20_000  # rows from which the components are computed
FLOOR = 1e-3  # the smallest standard deviation, as a share of the largest


def fit_whitening(rows: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Computes the mean of feature vectors f[n, D] and the map to `size` whitened components.

    Raises:
      UserError: if the features are all equal, or size is below 1.
    """
    if size < 1:
        raise UserError(f"size is {size}, the number of components of the features: give 1 or more")
    step = max(1, len(rows) // ROWS)
    some = np.asarray(rows[::step], np.float64)
    mean = some.mean(axis=0)
    _, values, directions = np.linalg.svd(some - mean, full_matrices=False)
    scale = values / np.sqrt(len(some))
    if not scale[0] > 0:
        raise UserError("the features of all good pictures are equal: give other features")
    kept = slice(0, min(size, len(scale)))
    divided = np.maximum(scale[kept], FLOOR * scale[0])
    return {
        "feature_mean": mean.astype(np.float32),
        "to_components": (directions[kept].T / divided).astype(np.float32),
    }


def whitened(state: State, features: Array) -> Array:
    """Returns the whitened components of features f32[..., D], f32[..., size]."""
    return (features - state["feature_mean"].reshape((1,) * (features.ndim - 1) + (-1,))) @ (
        jnp.asarray(state["to_components"])
    )
