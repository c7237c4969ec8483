"""Principal component analysis, and projections of points onto a plane.

components = principal(train_x, 64)
rebuild(components, project(components, test_x))      # reconstructs test_x from 64 components
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aejax.errors import UserError


class Principal(NamedTuple):
    """The leading principal components of data."""

    mean: np.ndarray  # f64[D], the mean of the data
    directions: np.ndarray  # f64[L, D], orthonormal rows
    variance: np.ndarray  # f64[L], the variance of the data along each direction


class Plane(NamedTuple):
    """Points projected onto a plane."""

    points: np.ndarray  # f[N, 2], the projected points
    share: float  # the share of the points' variance that lies in the plane


def principal(x: np.ndarray, latents: int) -> Principal:
    """Computes the leading principal components of data by a singular value decomposition.

    Args:
      x: [N, *event], the data.
      latents: L, the number of components to keep.

    Raises:
      UserError: if the data does not have that many components.
    """
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    if not 1 <= latents <= min(flat.shape):
        raise UserError(
            f"data of shape {flat.shape} does not have {latents} components: ask for 1 to "
            f"{min(flat.shape)}"
        )
    mean = flat.mean(axis=0)
    _, values, directions = np.linalg.svd(flat - mean, full_matrices=False)
    return Principal(mean, directions[:latents], np.square(values[:latents]) / len(flat))


def project(components: Principal, x: np.ndarray) -> np.ndarray:
    """Returns the coordinates of data [N, *event] along the components, f64[N, L]."""
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    return (flat - components.mean) @ components.directions.T


def rebuild(components: Principal, scores: np.ndarray) -> np.ndarray:
    """Reconstructs data, f64[N, D], from coordinates f[N, L] along the components."""
    return scores @ components.directions + components.mean


def plane(means: np.ndarray) -> Plane:
    """Projects points onto the plane of greatest variance, by a singular value decomposition.

    Args:
      means: f[N, L], the points, with L at least 2.

    Returns:
      A Plane; for L = 2 its points are those of `means`, centred and rotated.
    """
    centred = means - means.mean(axis=0)
    _, scale, directions = np.linalg.svd(centred, full_matrices=False)
    variance = np.square(scale)
    share = float(variance[:2].sum() / max(variance.sum(), np.finfo(float).tiny))
    return Plane(centred @ directions[:2].T, share)
