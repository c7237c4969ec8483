"""Anomalies as patches far from all patches of good pictures, after PatchCore."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from aejax.inspection.detector import Detector, Features, State, by_position
from aejax.inspection.whitening import fit_whitening, whitened
from aejax.types import Array, Key

CANDIDATES = 20_000  # patches among which the remembered ones are chosen


def neighbours(features: Features, size: int = 24, remembered: int = 1_000) -> Detector:
    """Returns the detector whose map is the distance of a patch to the nearest remembered one.

    PatchCore (Roth et al. 2022) also divides the score of a picture by how crowded its neighbour
    is; that factor is left out here.

    Args:
      features: the features of patches (see `aejax.inspection.features`).
      size: the number of whitened principal components of the features that are compared.
      remembered: the number of patches of good pictures that are kept.
    """

    def fit(key: Key, good: np.ndarray) -> State:
        found = by_position(features, good)
        rows = found.reshape(-1, found.shape[-1])
        state = fit_whitening(rows, size)
        chosen = np.asarray(jax.random.permutation(key, len(rows)))[:CANDIDATES]
        z = np.asarray(whitened(state, jnp.asarray(rows[chosen])))
        return {**state, "remembered": z[spread_out(z, remembered)]}

    def distance(state: State, pictures: Array) -> Array:
        z, kept = whitened(state, features.apply(state["features"], pictures)), state["remembered"]
        norms = jnp.sum(jnp.square(kept), axis=-1)[None, None, None]
        square = jnp.min(norms - 2.0 * z @ kept.T, axis=-1) + jnp.sum(jnp.square(z), axis=-1)
        return jnp.sqrt(jnp.maximum(square, 0.0))

    return Detector(fit, distance, given={"features": features.arrays})


def spread_out(rows: np.ndarray, count: int) -> np.ndarray:
    """Chooses rows that cover all others, i64[count], each the farthest from those before it.

    This is the greedy k-center algorithm (Gonzalez 1985); the first is the row nearest to the mean.

    Args:
      rows: f[n, D].
      count: the number of rows to choose; all rows if there are fewer.
    """
    if count >= len(rows):
        return np.arange(len(rows))
    norms = np.square(rows).sum(axis=1)
    chosen = [int(np.square(rows - rows.mean(axis=0)).sum(axis=1).argmin())]
    closest = np.full(len(rows), np.inf, rows.dtype)
    for _ in range(count - 1):
        last = chosen[-1]
        closest = np.minimum(closest, norms - 2 * rows @ rows[last] + norms[last])
        chosen.append(int(closest.argmax()))
    return np.asarray(chosen)
