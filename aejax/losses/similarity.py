"""The multi-scale structural similarity of pictures (MS-SSIM) as a loss term."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.types import Array, Forward, Term

# The exponents of the five scales (Wang et al. 2003, section 3.2), from the finest on.
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
STD = 1.5  # the standard deviation of the window in pixels
SMALL = (0.01, 0.03)  # K_1 and K_2, for values from 0 to 1
FLOOR = 1e-6  # the smallest factor, since a negative one has no real power


def dissimilarity(size: int = 11, weights: Sequence[float] = WEIGHTS) -> Term:
    """Returns the term 1 - MS-SSIM of the target and the mean of the prediction, f32[B].

    The value is 0 for equal pictures and at most 1. See Wang et al. 2003, equation 7; values must
    be from 0 to 1. For small pictures give fewer weights, or a smaller window. The mask is ignored.

    Args:
      size: the height and width of the Gaussian window in pixels.
      weights: the exponents of the scales, from the finest on; they are divided by their sum.
    """

    def dissimilarity(model: Any, forward: Forward) -> Array:
        return 1.0 - ms_ssim(
            forward.batch.target, model.mean(forward.prediction), size, tuple(weights)
        )

    return dissimilarity


def ms_ssim(one: Array, other: Array, size: int = 11, weights: Sequence[float] = WEIGHTS) -> Array:
    """Computes MS-SSIM of pictures f32[B, H, W, C] with values from 0 to 1, f32[B].

    Contrast and structure are compared at each scale, the luminance at the coarsest only. Windows
    lie inside of the picture; channels are compared one by one and averaged.

    Raises:
      UserError: if the pictures have another number of axes, or are smaller than the window at the
        coarsest scale.
    """
    least = size * 2 ** (len(weights) - 1)
    if one.ndim != 4 or min(one.shape[1:3]) < least:
        raise UserError(
            f"MS-SSIM with a window of {size} pixels and {len(weights)} scales needs pictures "
            f"[B, H, W, C] of {least} pixels or more, not {one.shape}: give a smaller size or "
            "fewer weights, such as dissimilarity(size=7, weights=(0.4, 0.6))"
        )
    total, value = sum(weights), jnp.ones((one.shape[0], one.shape[3]))
    for i, weight in enumerate(weights):
        luminance, contrast = _compared(one, other, size)
        factor = luminance * contrast if i + 1 == len(weights) else contrast
        factor = jnp.mean(factor, axis=(1, 2))
        value = value * jnp.maximum(factor, FLOOR) ** (weight / total)
        one, other = _halved(one), _halved(other)
    return jnp.mean(value, axis=-1)


def _compared(one: Array, other: Array, size: int) -> tuple[Array, Array]:
    """Returns the luminance's and the contrast's comparison at each pixel (Wang et al. 2004)."""
    means = [_blurred(a, size) for a in (one, other)]
    squares = [_blurred(a * b, size) for a, b in ((one, one), (other, other), (one, other))]
    both = means[0] * means[1]
    lengths = jnp.square(means[0]) + jnp.square(means[1])
    first, second = (small**2 for small in SMALL)
    luminance = (2.0 * both + first) / (lengths + first)
    covariance = squares[2] - both
    contrast = (2.0 * covariance + second) / (squares[0] + squares[1] - lengths + second)
    return luminance, contrast


def _blurred(images: Array, size: int) -> Array:
    """Averages under a Gaussian window that lies inside of the picture, f32[B, H', W', C]."""
    line = np.exp(-0.5 * ((np.arange(size) - 0.5 * (size - 1)) / STD) ** 2)
    line = (line / line.sum()).astype(np.float32)
    for axis in (1, 2):
        count = images.shape[axis] - size + 1
        shifted = [
            float(w) * jax.lax.slice_in_dim(images, i, i + count, axis=axis)
            for i, w in enumerate(line)
        ]
        images = functools.reduce(jnp.add, shifted)
    return images


def _halved(images: Array) -> Array:
    """Averages 2 x 2 pixels; a last odd row or column is left out."""
    height, width = images.shape[1] // 2, images.shape[2] // 2
    even = images[:, : 2 * height, : 2 * width]
    blocks = even.reshape((-1, height, 2, width, 2, images.shape[3]))
    return jnp.mean(blocks, axis=(2, 4))
