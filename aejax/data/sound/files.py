"""Reads and checks a sound file, and converts it to 16-bit samples of one channel at one rate."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np

from aejax.errors import UserError
from aejax.optional import needs

SCALE = 32_768.0  # the stored value that becomes 1.0
SUFFIXES = (".wav", ".flac")
MOST_SAMPLES = 2**26  # the longest sound that is read, in samples of all channels: 512 MiB
MOST_BYTES = 8 * MOST_SAMPLES  # the largest file of such a sound
MOST_MADE = 2**24  # the most samples that resampling makes of a short sound: 128 MiB
UNKNOWN = (0, 0xFFFFFFFF)  # placeholders that a .wav header may have instead of the file's length


class Sound(NamedTuple):
    """The samples of one file, before they are resampled."""

    samples: np.ndarray  # i16[T], or f64[T] if the file has other samples or several channels
    rate: int  # samples in a second
    channels: int  # the number of channels of the file


def read_sound(content: bytes, where: str, mix: bool = False) -> Sound:
    """Reads a .wav or .flac file.

    Args:
      content: the bytes of the file.
      where: the path of the file, for error messages.
      mix: whether to average the channels of a file that has several.

    Raises:
      UserError: if the file is not a sound, is damaged or cut off, has several channels and `mix`
        is False, or holds no samples or only silence.
    """
    soundfile = needs("soundfile", "reading sounds")
    if content[:4] == b"RIFF":
        _check_whole(content, where)
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            rate, channels, expected = file.samplerate, file.channels, file.frames
            if expected * channels > MOST_SAMPLES:
                raise UserError(
                    f"{where} has {expected:,} samples in {channels} channels, but "
                    f"{MOST_SAMPLES:,} at most are read: cut it into parts or remove it"
                )
            exact = file.subtype == "PCM_16" and channels == 1
            samples = file.read(dtype="int16" if exact else "float64", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        reason = getattr(error, "error_string", str(error)).strip().rstrip(".")
        raise UserError(
            f"{where} cannot be read as a sound ({reason}): restore it or remove it"
        ) from error
    if channels > 1 and not mix:
        raise UserError(
            f"{where} has {channels} channels: give mix=True (--mix) to average them, or convert "
            "it to one channel"
        )
    if expected == 0 or len(samples) == 0:
        raise UserError(f"{where} holds no samples: remove it")
    if len(samples) < expected:
        raise UserError(
            f"{where} is cut off after {len(samples)} of {expected} samples: restore it or remove "
            "it"
        )
    if not np.all(np.isfinite(samples)):
        raise UserError(f"{where} holds samples that are no finite numbers: remove it")
    samples = samples[:, 0] if channels == 1 else samples.mean(axis=1)
    if not np.any(samples):
        raise UserError(f"{where} holds nothing but silence: remove it")
    return Sound(samples, rate, channels)


def at_rate(sound: Sound, rate: int, where: str) -> np.ndarray:
    """Resamples a sound if its rate differs, and rounds its samples to 16 bits, i16[T'].

    Samples louder than full scale are clipped.

    Raises:
      UserError: if a few samples would become very many, since the file states a very low rate.
    """
    samples, count = sound.samples, len(sound.samples) * rate / max(1, sound.rate)
    if count > max(MOST_MADE, 8 * len(samples)):
        raise UserError(
            f"{where} has {len(samples):,} samples at {sound.rate} Hz, which would become "
            f"{count:,.0f} at {rate} Hz: check its sampling rate or remove it"
        )
    if sound.rate != rate:
        soxr = needs("soxr", "changing the sampling rate")
        if samples.dtype == np.int16:
            samples = samples / SCALE
        samples = soxr.resample(samples, sound.rate, rate, quality="HQ")
    if samples.dtype == np.int16:
        return samples
    return np.clip(np.round(samples * SCALE), -SCALE, SCALE - 1).astype(np.int16)


def _check_whole(content: bytes, where: str) -> None:
    """Raises UserError if a .wav file is shorter than its header says; libsndfile ignores that."""
    stated = int.from_bytes(content[4:8], "little")
    if stated not in UNKNOWN and len(content) < stated + 8:
        raise UserError(
            f"{where} is cut off after {len(content)} of {stated + 8} bytes: restore it or remove "
            "it"
        )
