"""The short-time Fourier transform (STFT) of a sound, and its inverse.

Frame f is centred at sample f * hop, with zeros before the first and after the last sample, and is
multiplied by a periodic Hann window. These are the conventions of librosa with pad_mode="constant".
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.types import Array


def window(size: int) -> np.ndarray:
    """Returns the periodic Hann window, f64[size]."""
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(size) / size)


def stft(x: Array, size: int = 512, hop: int = 128) -> Array:
    """Computes the short-time Fourier transform.

    Args:
      x: a sound in any unit, f[..., T].
      size: the number of samples in a frame, an even number.
      hop: the number of samples from the start of one frame to that of the next.

    Returns:
      The spectrum of each frame, c[..., 1 + T // hop, 1 + size // 2].

    Raises:
      UserError: if size is odd or below 2, or hop is not from 1 to size / 2.
    """
    _check(size, hop)
    half = size // 2
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(half, half)])
    start = hop * np.arange(1 + x.shape[-1] // hop)
    frames = jnp.take(padded, start[:, None] + np.arange(size), axis=-1)
    return jnp.fft.rfft(frames * _shaped(window(size), frames), axis=-1)


def inverse_stft(spectrum: Array, size: int = 512, hop: int = 128) -> Array:
    """Computes the sound whose STFT is closest to a spectrum (Griffin and Lim 1984, equation 6).

    A spectrum that `stft` returned is inverted exactly, up to rounding.

    Args:
      spectrum: the spectrum of each frame, c[..., frames, 1 + size // 2].
      size: the number of samples in a frame, an even number.
      hop: the number of samples from the start of one frame to that of the next.

    Returns:
      The sound from the centre of the first frame to that of the last, f[..., (frames - 1) * hop].

    Raises:
      UserError: if size is odd or below 2, or hop is not from 1 to size / 2.
    """
    _check(size, hop)
    count = spectrum.shape[-2]
    frames = jnp.fft.irfft(spectrum, n=size, axis=-1)
    frames = frames * _shaped(window(size), frames)
    place = hop * np.arange(count)[:, None] + np.arange(size)
    length = (count - 1) * hop + size
    total = jnp.zeros((*frames.shape[:-2], length), frames.dtype).at[..., place].add(frames)
    weight = np.bincount(place.reshape(-1), np.tile(np.square(window(size)), count))
    inner = slice(size // 2, length - size // 2)
    # Within the centres of the first and the last frame the sum of squared windows is above 0.
    return total[..., inner] / _shaped(weight[inner], total)


def _shaped(values: np.ndarray, like: Array) -> Array:
    """Returns values f[n] with the dtype and the number of axes of an array f[..., n]."""
    return jnp.asarray(values.reshape((1,) * (like.ndim - 1) + (-1,)), like.dtype)


def _check(size: int, hop: int) -> None:
    if size < 2 or size % 2 or not 1 <= hop <= size // 2:
        raise UserError(
            f"frames of {size} samples with a hop of {hop} cannot be inverted: give an even size, "
            "2 or more, and a hop from 1 to half of it"
        )
