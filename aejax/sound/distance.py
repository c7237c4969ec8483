"""The multi-resolution STFT distance of two sounds, which ignores most of their phases."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from aejax.sound.stft import stft
from aejax.types import Array

SIZES = (512, 256, 128, 64)


def stft_distance(
    x: Array, y: Array, mask: Array | None = None, sizes: Sequence[int] = SIZES
) -> Array:
    """Computes the mean over resolutions of spectral convergence + log-magnitude distance, f32[B].

    With the magnitudes S of x and R of y it is |S - R| / |S| (Frobenius norms) plus the mean of
    |log S - log R| over frames and frequencies (Yamamoto et al. 2020, equations 4 and 5).

    Args:
      x: the true sounds, f32[B, T].
      y: the other sounds, f32[B, T].
      mask: f32[B, T], 1 within a recording and 0 after its end; frames that are centred after the
        end do not count. None: all count.
      sizes: the numbers of samples in a frame; the hop is a quarter of each.
    """
    mask = jnp.ones(x.shape, x.dtype) if mask is None else jnp.broadcast_to(mask, x.shape)
    x, y = x * mask, y * mask
    total = jnp.zeros(x.shape[0])
    for size in sizes:
        hop = size // 4
        inside = mask[:, ::hop][..., None]
        real, other = (_magnitude(values, size, hop) * inside for values in (x, y))
        apart = jnp.sqrt(jnp.sum(jnp.square(real - other), axis=(1, 2)) + 1e-12)
        norm = jnp.sqrt(jnp.sum(jnp.square(real), axis=(1, 2)) + 1e-12)
        logs = jnp.sum(jnp.abs(jnp.log(real + 1e-5) - jnp.log(other + 1e-5)), axis=(1, 2))
        counted = jnp.maximum(jnp.sum(inside, axis=(1, 2)), 1.0) * np.float32(1 + size // 2)
        total = total + apart / norm + logs / counted
    return total / len(sizes)


def _magnitude(values: Array, size: int, hop: int) -> Array:
    """Returns the magnitudes of the frames that are centred within [0, T), f32[B, frames, bins]."""
    found = stft(values, size, hop)[:, : -(-values.shape[-1] // hop)]
    # The square root's gradient would be infinite at 0.
    return jnp.sqrt(jnp.square(found.real) + jnp.square(found.imag) + 1e-14)
