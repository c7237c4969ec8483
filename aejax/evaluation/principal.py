"""Principal components of data, and points of any number of dimensions seen in the plane.

components = principal(train_x, 64)
rebuild(components, project(components, test_x))      # what 64 components keep of test_x
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aejax.errors import UserError


class Principal(NamedTuple):
    """The leading principal components of data."""

    mean: np.ndarray  # f64[D]
    directions: np.ndarray  # f64[L, D], orthonormal rows
    variance: np.ndarray  # f64[L], of the data along each direction


class Plane(NamedTuple):
    """Points of any number of dimensions seen in the plane."""

    points: np.ndarray  # f[N, 2]
    share: float  # of the variance that the plane keeps


def principal(x: np.ndarray, latents: int) -> Principal:
    """Principal component analysis by singular value decomposition.

    Args:
      x: [N, *event].
      latents: L, components to keep.

    Raises:
      UserError: if there are not that many components.
    """
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    if not 1 <= latents <= min(flat.shape):
        raise UserError(f"{latents} components of data {flat.shape}: give 1 to {min(flat.shape)}")
    mean = flat.mean(axis=0)
    _, values, directions = np.linalg.svd(flat - mean, full_matrices=False)
    return Principal(mean, directions[:latents], np.square(values[:latents]) / len(flat))


def project(components: Principal, x: np.ndarray) -> np.ndarray:
    """Scores of data [N, *event] along the components, f64[N, L]."""
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    return (flat - components.mean) @ components.directions.T


def rebuild(components: Principal, scores: np.ndarray) -> np.ndarray:
    """The data that scores f[N, L] stand for, f64[N, D]."""
    return scores @ components.directions + components.mean


def plane(means: np.ndarray) -> Plane:
    """The plane of greatest variance (PCA by a singular value decomposition).

    Args:
      means: f[N, L], L at least 2.

    Returns:
      A Plane; with L = 2 the points are those of `means` but for a rotation about their mean.
    """
    centred = means - means.mean(axis=0)
    _, scale, directions = np.linalg.svd(centred, full_matrices=False)
    variance = np.square(scale)
    share = float(variance[:2].sum() / max(variance.sum(), np.finfo(float).tiny))
    return Plane(centred @ directions[:2].T, share)
