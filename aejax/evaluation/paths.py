"""How smooth paths between examples are, and whether what lies on them could be an example."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aejax.errors import UserError
from aejax.evaluation.generation import Features, nearest_distance, taken


class Paths(NamedTuple):
    """P decoded paths; an end is a decoded example, what lies between comes from no example."""

    step_ratio: np.ndarray  # f64[P], the largest step over the mean step; 1 is even
    confidence: np.ndarray  # f64[P], of the classifier in its first choice, mean between the ends
    least_confidence: np.ndarray  # f64[P], the least of it between the ends
    distance: np.ndarray  # f64[P], L2 to the nearest real example, mean between the ends


def paths(frames: np.ndarray, probabilities: Features, real: np.ndarray) -> Paths:
    """Measures decoded paths.

    Args:
      frames: f[P, T, *event], T points of each path in order, both ends among them.
      probabilities: of an independent classifier, f[B, *event] -> f[B, classes].
      real: f[N, *event], that no frame is a copy of.

    Raises:
      UserError: if a path has no point between its ends, or does not move.
    """
    count, points = frames.shape[:2]
    if points < 3:
        raise UserError(f"a path of {points} points has none between its ends: give 3 or more")
    between = frames[:, 1:-1].reshape(-1, *frames.shape[2:])
    confidence = taken(probabilities, between).max(axis=-1).reshape(count, -1)
    distance = nearest_distance(between, real).reshape(count, -1)
    return Paths(
        step_ratio(frames), confidence.mean(axis=1), confidence.min(axis=1), distance.mean(axis=1)
    )


def step_ratio(frames: np.ndarray) -> np.ndarray:
    """The largest step over the mean step of each path f[P, T, *event], by L2, f64[P].

    Raises:
      UserError: if a path does not move.
    """
    flat = np.asarray(frames, np.float64).reshape(*frames.shape[:2], -1)
    steps = np.linalg.norm(np.diff(flat, axis=1), axis=-1)
    if not np.all(steps.sum(axis=1) > 0):
        raise UserError("a path does not move: give it two ends that differ")
    return steps.max(axis=1) / steps.mean(axis=1)
