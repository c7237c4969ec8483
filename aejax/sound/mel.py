"""Mel spectrograms: the magnitude of a sound in frequency bands that hearing can distinguish."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.sound.griffin_lim import griffin_lim
from aejax.sound.stft import stft
from aejax.types import Array, Key

# Slaney's scale: linear below 1 kHz, with 15 mels, and logarithmic above (Auditory Toolbox, 1998).
BREAK, MELS_AT_BREAK, STEP = 1000.0, 15.0, np.log(6.4) / 27.0


def to_mel(hertz: np.ndarray) -> np.ndarray:
    """Converts frequencies in hertz to Slaney's mels."""
    above = MELS_AT_BREAK + np.log(np.maximum(hertz, BREAK) / BREAK) / STEP
    return np.where(hertz >= BREAK, above, hertz * MELS_AT_BREAK / BREAK)


def to_hertz(mels: np.ndarray) -> np.ndarray:
    """Converts Slaney's mels to frequencies in hertz."""
    above = BREAK * np.exp(STEP * (np.maximum(mels, MELS_AT_BREAK) - MELS_AT_BREAK))
    return np.where(mels >= MELS_AT_BREAK, above, mels * BREAK / MELS_AT_BREAK)


def mel_filterbank(rate: int, size: int, bands: int) -> np.ndarray:
    """Returns triangular filters of equal area, evenly spaced on Slaney's mel scale.

    They are those of librosa.filters.mel with its default arguments.

    Args:
      rate: the number of samples in a second.
      size: the number of samples in a frame of the STFT.
      bands: the number of filters, from 0 Hz to half the rate.

    Returns:
      f64[bands, 1 + size // 2], the matrix by which a magnitude spectrum is multiplied.

    Raises:
      UserError: if a band contains no frequency of the STFT.
    """
    frequencies = np.linspace(0.0, rate / 2, 1 + size // 2)
    edges = to_hertz(np.linspace(0.0, float(to_mel(np.asarray(rate / 2))), bands + 2))
    widths = np.diff(edges)
    ramps = edges[:, None] - frequencies
    rising, falling = -ramps[:-2] / widths[:-1, None], ramps[2:] / widths[1:, None]
    filters = np.maximum(0.0, np.minimum(rising, falling))
    filters *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    if not np.all(filters.max(axis=1) > 0):
        raise UserError(
            f"{bands} mel bands are too many for frames of {size} samples at {rate} Hz, since some "
            "band would be empty: give fewer bands or longer frames"
        )
    return filters


def frame_size(rate: int) -> int:
    """Returns the power of two that is nearest to 64 ms, in samples, for a rate in hertz."""
    return 2 ** round(np.log2(0.064 * rate))


@dataclasses.dataclass(frozen=True)
class Mel:
    """Converts sounds to logarithms of mel spectrograms, and back.

    Frame f is centred at sample f * hop; a sound of T samples has ceil(T / hop) frames.
    """

    rate: int = 8_000  # samples in a second
    size: int = 512  # samples in a frame
    hop: int = 128  # samples from one frame to the next
    bands: int = 40  # the number of mel bands
    floor: float = 1e-3  # replaces smaller magnitudes, so that silence has a finite logarithm

    def log_mel(self, x: Array) -> Array:
        """Computes the natural logarithm of the magnitude in each band, f32[..., frames, bands].

        Args:
          x: a sound in [-1, 1], f32[..., T].
        """
        magnitude = jnp.abs(stft(x, self.size, self.hop))[..., : -(-x.shape[-1] // self.hop), :]
        mel = jnp.matmul(magnitude, self._filters().T, precision="highest")
        return jnp.log(jnp.maximum(mel, self.floor))

    def frames(self, length: Array) -> Array:
        """Returns the number of frames that are centred within a sound of `length` samples."""
        return -(-length // self.hop)

    def magnitude(self, log_mel: Array, iterations: int = 100) -> Array:
        """Finds a magnitude spectrum with the given mel spectrogram, f32[..., frames, bins].

        The spectrum is not unique. The multiplicative updates of Lee and Seung 2001 minimise the
        squared error and keep the spectrum non-negative. They start from the product of the mel
        spectrogram and the filterbank.
        """
        filters = self._filters()
        mel = jnp.exp(log_mel)
        # A magnitude at the floor was between 0 and the floor; the middle of this range is used,
        # because it sounded closest on real recordings.
        mel = jnp.where(mel > self.floor * (1 + 1e-6), mel, 0.5 * self.floor)
        product = functools.partial(jnp.matmul, precision="highest")
        wanted, gram = product(mel, filters), product(filters.T, filters)

        def update(_: Array, found: Array) -> Array:
            return found * wanted / (product(found, gram) + 1e-10)

        return jax.lax.fori_loop(0, iterations, update, wanted / jnp.max(gram))

    def sound(self, log_mel: Array, key: Key, iterations: int = 64) -> Array:
        """Returns a sound with the given log-mel spectrogram, f32[..., frames * hop].

        The algorithm of Griffin and Lim finds its phases, starting from random phases, so the sound
        depends on the key.

        Args:
          log_mel: f32[..., frames, bands].
          key: the key of the first phases.
          iterations: the number of iterations of Griffin-Lim.
        """
        magnitude = self.magnitude(log_mel)
        # A silent frame is appended, so that the sound reaches to the end of the last real frame.
        last = jnp.zeros_like(magnitude[..., :1, :])
        magnitude = jnp.concatenate([magnitude, last], axis=-2)
        phases = jax.random.uniform(key, magnitude.shape, maxval=2.0 * np.pi)
        return griffin_lim(magnitude, phases, self.size, self.hop, iterations)

    def _filters(self) -> Array:
        return jnp.asarray(mel_filterbank(self.rate, self.size, self.bands), jnp.float32)
