"""What one unit stands for: which labels its top examples have, for any kind of unit.

units(latents(sae, variables, test), test.labels)                # latents of a sparse code
units(signed(latents(plain, variables, test)), test.labels)      # units of a plain autoencoder
units(signed(project(principal(train_x, 64), test_x)), labels)   # principal components
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aejax.errors import UserError


class Units(NamedTuple):
    """How well the top examples of each unit agree on a label."""

    entropy: np.ndarray  # f64[M], of the labels of a unit's top examples, nats; NaN: not judged
    label: np.ndarray  # i64[M], the commonest label of the top examples; -1: not judged
    mean_entropy: float  # over the judged units
    agree: float  # share of the judged units whose top examples all have one label
    judged: int  # units with at least `top` active examples
    rare: int  # units with some, but fewer
    dead: int  # units with none


class Principal(NamedTuple):
    """The leading principal components of data."""

    mean: np.ndarray  # f64[D]
    directions: np.ndarray  # f64[L, D], orthonormal rows
    variance: np.ndarray  # f64[L], of the data along each direction


def units(activations: np.ndarray, labels: np.ndarray, *, top: int = 20) -> Units:
    """Label entropy and agreement of the top examples of each unit.

    A unit with fewer active examples than `top` is not judged: one example agrees with itself.

    Args:
      activations: f[N, M], a unit is active where its value is above zero.
      labels: integers [N], from 0.
      top: examples with the largest activation that a unit is judged by.

    Raises:
      UserError: if the shapes do not belong together.
    """
    activations, labels = np.asarray(activations), np.asarray(labels)
    if activations.ndim != 2 or labels.shape != activations.shape[:1]:
        raise UserError(
            f"activations {activations.shape} and labels {labels.shape} do not belong together: "
            "give [N, M] and [N]"
        )
    if not 1 <= top <= len(labels):
        raise UserError(f"top is {top}, but there are {len(labels)} examples: give 1 to that many")
    active = np.sum(activations > 0, axis=0)
    judged = active >= top
    rows = np.argpartition(-activations, top - 1, axis=0)[:top]  # [top, M]
    classes = int(labels.max()) + 1
    counts = np.sum(labels[rows][:, :, None] == np.arange(classes), axis=0)  # [M, classes]
    share = counts / top
    entropy = -np.sum(share * np.log(np.where(share > 0, share, 1.0)), axis=-1)
    some = bool(judged.any())
    return Units(
        entropy=np.where(judged, entropy, np.nan),
        label=np.where(judged, np.argmax(counts, axis=-1), -1),
        mean_entropy=float(entropy[judged].mean()) if some else float("nan"),
        agree=float(np.mean(counts[judged].max(axis=-1) == top)) if some else float("nan"),
        judged=int(judged.sum()),
        rare=int(np.sum((active > 0) & ~judged)),
        dead=int(np.sum(active == 0)),
    )


def signed(activations: np.ndarray) -> np.ndarray:
    """A unit that answers both ways as two that answer one way each.

    Args:
      activations: f[N, M], of units that may be negative.

    Returns:
      f[N, 2 M]: the positive parts, then the negative ones; about the units' means.
    """
    centred = activations - np.mean(activations, axis=0, dtype=np.float64)
    return np.concatenate([np.maximum(centred, 0), np.maximum(-centred, 0)], axis=-1)


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
