"""Measures how smooth and how realistic decoded paths between two examples are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aejax.errors import UserError
from aejax.evaluation.generation import Features, nearest_distance, taken


class Paths(NamedTuple):
    """How even and how realistic P decoded paths are; each joins two reconstructions.

    A step is the L2 distance between consecutive points; inner points are all points but the ends.
    """

    step_ratio: np.ndarray  # f64[P], the largest step / the mean step; 1 if all steps are equal
    # f64[P], the classifier's largest class probability, averaged over the inner points.
    confidence: np.ndarray
    least_confidence: np.ndarray  # f64[P], the smallest such probability of an inner point
    # f64[P], the L2 distance to the nearest real example, averaged over the inner points.
    distance: np.ndarray


def paths(frames: np.ndarray, probabilities: Features, real: np.ndarray) -> Paths:
    """Computes how even the steps of decoded paths are, and how realistic their inner points are.

    Args:
      frames: f[P, T, *event], T points of each path in order, including both ends.
      probabilities: a function that returns the class probabilities of an independent classifier,
        f[B, *event] -> f[B, classes].
      real: f[N, *event], real examples; the ends of the paths should not be among them.

    Raises:
      UserError: if the paths have no inner point, or if all points of a path are equal.
    """
    count, points = frames.shape[:2]
    if points < 3:
        raise UserError(
            f"a path of {points} points has no points between its ends: give 3 or more points"
        )
    between = frames[:, 1:-1].reshape(-1, *frames.shape[2:])
    confidence = taken(probabilities, between).max(axis=-1).reshape(count, -1)
    distance = nearest_distance(between, real).reshape(count, -1)
    return Paths(
        step_ratio(frames), confidence.mean(axis=1), confidence.min(axis=1), distance.mean(axis=1)
    )


def step_ratio(frames: np.ndarray) -> np.ndarray:
    """Returns the largest L2 step divided by the mean step of each path: f[P, T, *event] -> f64[P].

    Raises:
      UserError: if all points of a path are equal.
    """
    flat = np.asarray(frames, np.float64).reshape(*frames.shape[:2], -1)
    steps = np.linalg.norm(np.diff(flat, axis=1), axis=-1)
    if not np.all(steps.sum(axis=1) > 0):
        raise UserError("all points of a path are equal: give paths with different ends")
    return steps.max(axis=1) / steps.mean(axis=1)
