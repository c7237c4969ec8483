"""Anomalies as patches whose features are far from a Gaussian of good ones, after PaDiM."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from aejax.inspection.detector import Detector, Features, State, by_position
from aejax.inspection.whitening import fit_whitening, whitened
from aejax.types import Array, Key

SHRINK = 0.01  # added to the variances, in which whitened features have 1


def gaussian(features: Features, size: int = 24, by_place: bool = True) -> Detector:
    """Returns the detector whose map is the Mahalanobis distance of patch features.

    PaDiM (Defard et al. 2021) keeps a random choice of features; here the leading principal
    components are kept.

    Args:
      features: the features of patches (see `aejax.inspection.features`).
      size: the number of principal components of the features that are kept.
      by_place: whether each place has a Gaussian of its own, as for parts that always lie the same
        way; otherwise all places share one, as for textures.
    """

    def fit(key: Key, good: np.ndarray) -> State:
        found = by_position(features, good)
        state = fit_whitening(found.reshape(-1, found.shape[-1]), size)
        z = np.asarray(whitened(state, jnp.asarray(found)))
        if not by_place:
            z = z.reshape(-1, 1, 1, z.shape[-1])
        mean = z.mean(axis=0)
        rest = z - mean
        covariance = np.einsum("nhwi,nhwj->hwij", rest, rest, optimize=True) / len(z)
        precision = np.linalg.inv(covariance + SHRINK * np.eye(z.shape[-1]))
        return {**state, "gaussian_mean": mean, "precision": precision.astype(np.float32)}

    def distance(state: State, pictures: Array) -> Array:
        rest = (
            whitened(state, features.apply(state["features"], pictures))
            - state["gaussian_mean"][None]
        )
        precision = jnp.broadcast_to(state["precision"], (*rest.shape[1:], rest.shape[-1]))
        square = jnp.einsum("bhwi,hwij,bhwj->bhw", rest, precision, rest)
        return jnp.sqrt(jnp.maximum(square, 0.0))

    return Detector(fit, distance, given={"features": features.arrays})
