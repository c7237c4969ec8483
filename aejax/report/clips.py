"""Sounds of the report page: a spectrogram with a player below it, embedded in the page."""

from __future__ import annotations

import base64
import html
import io
import wave
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from aejax.sound.mel import Mel, frame_size

RANGE = 7.0  # the natural logarithm of the ratio of the loudest to the darkest colour's magnitude
WIDTH, HEIGHT = 2, 80  # CSS pixels of one frame's width, and of a spectrogram's height


class Clip(NamedTuple):
    """A sound that the report page plays."""

    name: str  # the name of its file sounds/NAME.wav: lower-case letters, digits and hyphens
    caption: str  # what is heard
    samples: np.ndarray  # f[T], in [-1, 1]; louder samples are clipped
    rate: int  # samples in a second


def wav(clip: Clip) -> bytes:
    """Returns a sound as the bytes of a .wav file with 16 bits a sample."""
    values = np.clip(np.round(np.asarray(clip.samples, np.float64) * 32767.0), -32768, 32767)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(clip.rate)
        out.writeframes(values.astype("<i2").tobytes())
    return file.getvalue()


def spectrogram(clip: Clip) -> tuple[bytes, int, int]:
    """Returns a sound's mel spectrogram as a PNG file, and its width and height in CSS pixels.

    Low frequencies are at the bottom; colours span 61 dB below the loudest point.
    """
    from matplotlib.image import imsave

    size = frame_size(clip.rate)
    mel = Mel(clip.rate, size, size // 4, bands=64 if size >= 1024 else 40, floor=1e-5)
    values = np.asarray(mel.log_mel(jnp.asarray(clip.samples, jnp.float32)))
    high = float(values.max())
    shown = np.clip(values, high - RANGE, high).T
    file = io.BytesIO()
    imsave(file, shown, cmap="magma", vmin=high - RANGE, vmax=high, origin="lower", format="png")
    return file.getvalue(), WIDTH * shown.shape[1], HEIGHT


def players(clips: Sequence[Clip]) -> str:
    """Returns HTML with the spectrogram, a player and the caption of each sound."""
    return f'<div class="clips">{"".join(map(_player, clips))}</div>'


def _player(clip: Clip) -> str:
    picture, width, height = spectrogram(clip)
    shown, heard = (base64.b64encode(data).decode() for data in (picture, wav(clip)))
    caption = html.escape(clip.caption, quote=True)
    return (
        f'<figure class="clip" id="{html.escape(clip.name, quote=True)}">'
        f'<img src="data:image/png;base64,{shown}" width="{width}" height="{height}" '
        f'alt="Spectrogram: {caption}">'
        f'<audio controls preload="metadata" src="data:audio/wav;base64,{heard}"></audio>'
        f"<figcaption>{caption}</figcaption></figure>"
    )
