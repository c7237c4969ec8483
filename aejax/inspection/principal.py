"""Anomalies as what principal components of whole good pictures do not reconstruct."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from aejax.evaluation import principal as components_of
from aejax.inspection.detector import Detector, State
from aejax.types import Array, Key


def principal(components: int) -> Detector:
    """Returns the detector whose map is the squared residual of principal components.

    Args:
      components: the number of components, fewer than good pictures.
    """

    def fit(key: Key, good: np.ndarray) -> State:
        found = components_of(good.reshape(len(good), -1) / 255.0, components)
        return {
            "mean": found.mean.astype(np.float32),
            "directions": found.directions.astype(np.float32),
        }

    def residual(state: State, pictures: Array) -> Array:
        x = pictures.reshape(len(pictures), -1) - state["mean"][None]
        rest = x - (x @ state["directions"].T) @ state["directions"]
        return jnp.sum(jnp.square(rest.reshape(pictures.shape)), axis=-1)

    return Detector(fit, residual)
