"""Griffin-Lim: finds phases that fit the magnitudes of a spectrogram."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from aejax.sound.stft import inverse_stft, stft
from aejax.types import Array


def griffin_lim(
    magnitude: Array,
    phases: Array,
    size: int = 512,
    hop: int = 128,
    iterations: int = 32,
    momentum: float = 0.99,
) -> Array:
    """Computes a sound whose STFT has about the given magnitudes.

    It uses the accelerated algorithm of Perraudin et al. 2013, as librosa does.

    Args:
      magnitude: the magnitude of each frame's spectrum, f[..., frames, 1 + size // 2].
      phases: the phases to start from, in radians, in the same shape.
      size: the number of samples in a frame.
      hop: the number of samples from one frame to the next.
      iterations: the number of iterations.
      momentum: the weight with which an iteration continues in the direction of the previous one;
        with 0 it is the algorithm of Griffin and Lim 1984.

    Returns:
      The sound, f[..., (frames - 1) * hop].
    """
    share = momentum / (1.0 + momentum)

    def iterate(i: Array, carried: tuple[Array, Array]) -> tuple[Array, Array]:
        spectrum, before = carried
        rebuilt = stft(inverse_stft(spectrum, size, hop), size, hop)
        moved = rebuilt - share * before
        return magnitude * _unit(moved), rebuilt

    start = magnitude * jnp.exp(1j * phases)
    found, _ = jax.lax.fori_loop(0, iterations, iterate, (start, jnp.zeros_like(start)))
    return inverse_stft(found, size, hop)


def _unit(values: Array) -> Array:
    """Returns complex values divided by their magnitudes; 0 stays 0."""
    length = jnp.abs(values)
    return jnp.where(length > 0, values / jnp.where(length > 0, length, 1.0), 0.0)
