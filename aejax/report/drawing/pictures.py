"""Examples as pictures: grey or colour images as they are, vectors as strips."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LONGEST = 256  # values of a vector that a strip can show
# Of weights; blue and orange are told apart by all readers.
ZERO, ABOVE, BELOW = (0.94, 0.945, 0.95), (0.80, 0.36, 0.0), (0.10, 0.38, 0.70)


class Look(NamedTuple):
    """How the examples of one data set are shown."""

    low: float  # the value shown black
    high: float  # the value shown white
    event: tuple[int, ...]  # the shape of one example

    @property
    def strips(self) -> bool:
        """Whether an example is a vector, drawn as one row of shades."""
        return len(self.event) == 1

    @property
    def drawable(self) -> bool:
        """Whether an example can be drawn at all."""
        if self.strips:
            return self.event[0] <= LONGEST
        return len(self.event) == 2 or (len(self.event) == 3 and self.event[2] in (1, 3))

    def pictures(self, values: np.ndarray) -> np.ndarray:
        """f[..., *event] -> f[..., H, W, C] in [0, 1]."""
        scaled = np.clip((values - self.low) / (self.high - self.low), 0.0, 1.0)
        return shaped(scaled, self.event)


def look(target: np.ndarray) -> Look:
    """How to show a data set, judged by some of its targets f[N, *event].

    Values within [0, 1] keep their meaning; others are spread from the first to the last percent.
    """
    low, high = 0.0, 1.0
    if target.min() < 0 or target.max() > 1:
        low, high = (float(q) for q in np.percentile(target, [1, 99]))
    return Look(low, high if high > low else low + 1.0, target.shape[1:])


def shaped(values: np.ndarray, event: tuple[int, ...]) -> np.ndarray:
    """f[..., *event] -> f[..., H, W, C]: a vector becomes a strip a fifth as tall as wide."""
    lead = values.shape[: values.ndim - len(event)]
    if len(event) == 3:
        return values
    if len(event) == 2:
        return values[..., None]
    tall = max(1, event[0] // 5)
    return np.broadcast_to(values[..., None, :, None], (*lead, tall, event[0], 1))


def signed(values: np.ndarray) -> np.ndarray:
    """Weights as colours: blue below zero, pale grey at zero, orange above, each by itself.

    Args:
      values: f[N, H, W, 1], or f[N, H, W, 3], whose channels are shown about middle grey.

    Returns:
      f[N, H, W, 3] in [0, 1].
    """
    largest = np.abs(values).max(axis=(1, 2, 3), keepdims=True)
    share = values / np.maximum(largest, np.finfo(np.float32).tiny)
    if values.shape[-1] == 3:
        return 0.5 + 0.5 * share
    zero, above, below = (np.array(colour) for colour in (ZERO, ABOVE, BELOW))
    return zero + np.maximum(share, 0) * (above - zero) + np.maximum(-share, 0) * (below - zero)
