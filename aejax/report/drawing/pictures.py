"""Conversion of examples and weights to images; a vector becomes a strip of grey values."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LONGEST = 256  # the longest vector that can be drawn as a strip
# The colours of zero, positive and negative weights: grey, orange and blue. Colour-blind readers
# can distinguish orange and blue.
ZERO, ABOVE, BELOW = (0.94, 0.945, 0.95), (0.80, 0.36, 0.0), (0.10, 0.38, 0.70)


class Look(NamedTuple):
    """How examples of a data set are drawn: their shape, and the values drawn black and white."""

    low: float  # the value that is drawn black
    high: float  # the value that is drawn white
    event: tuple[int, ...]  # the shape of one example

    @property
    def strips(self) -> bool:
        """Returns whether an example is a vector, which is drawn as a strip of grey values."""
        return len(self.event) == 1

    @property
    def drawable(self) -> bool:
        """Returns whether an example is an image of 1 or 3 channels, or a short enough vector."""
        if self.strips:
            return self.event[0] <= LONGEST
        return len(self.event) == 2 or (len(self.event) == 3 and self.event[2] in (1, 3))

    def pictures(self, values: np.ndarray) -> np.ndarray:
        """Scales values f[..., *event] to [0, 1] and reshapes them to images f[..., H, W, C]."""
        scaled = np.clip((values - self.low) / (self.high - self.low), 0.0, 1.0)
        return shaped(scaled, self.event)


def look(target: np.ndarray) -> Look:
    """Decides how to draw a data set, from some of its targets f[N, *event].

    If all values lie in [0, 1], 0 is black and 1 is white; otherwise the 1st percentile is black
    and the 99th is white.
    """
    low, high = 0.0, 1.0
    if target.min() < 0 or target.max() > 1:
        low, high = (float(q) for q in np.percentile(target, [1, 99]))
    return Look(low, high if high > low else low + 1.0, target.shape[1:])


def shaped(values: np.ndarray, event: tuple[int, ...]) -> np.ndarray:
    """Reshapes f[..., *event] to images f[..., H, W, C].

    A vector becomes a strip that is five times as wide as tall.
    """
    lead = values.shape[: values.ndim - len(event)]
    if len(event) == 3:
        return values
    if len(event) == 2:
        return values[..., None]
    tall = max(1, event[0] // 5)
    return np.broadcast_to(values[..., None, :, None], (*lead, tall, event[0], 1))


def signed(values: np.ndarray) -> np.ndarray:
    """Converts weights, which may be negative, to colour images.

    Each of the N weight vectors is scaled by its own largest magnitude.

    Args:
      values: the weights f[N, H, W, 1], drawn blue below zero, pale grey at zero and orange above
        zero; or the weights of colour images, f[N, H, W, 3], drawn as colours around middle grey.

    Returns:
      f[N, H, W, 3] in [0, 1].
    """
    largest = np.abs(values).max(axis=(1, 2, 3), keepdims=True)
    share = values / np.maximum(largest, np.finfo(np.float32).tiny)
    if values.shape[-1] == 3:
        return 0.5 + 0.5 * share
    zero, above, below = (np.array(colour) for colour in (ZERO, ABOVE, BELOW))
    return zero + np.maximum(share, 0) * (above - zero) + np.maximum(-share, 0) * (below - zero)


def in_colour(pictures: np.ndarray) -> np.ndarray:
    """Returns grey or colour pictures f[..., H, W, C] with three channels, f[..., H, W, 3]."""
    return np.repeat(pictures, 3, axis=-1) if pictures.shape[-1] == 1 else pictures
