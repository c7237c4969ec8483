"""Changes of batches of sounds: masks, log-mel spectrograms, companding, durations.

changed(train, Spectrogram(Mel()), Attributes(digit=10, speaker=6), Duration())
changed(train, Companded(256))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from aejax.errors import UserError
from aejax.sound.companding import mu_law
from aejax.sound.mel import Mel
from aejax.types import Array, Batch, Key


@dataclasses.dataclass(frozen=True)
class Ended:
    """Sets the mask to 1 within each recording and to 0 after its end, f32[B, T, 1]."""

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Applies the change to one batch of sounds f32[B, T, 1]."""
        mask = before(_length(arrays), batch.target.shape[1])
        return batch._replace(mask=mask[..., None])


@dataclasses.dataclass(frozen=True)
class Spectrogram:
    """Replaces sounds by log-mel spectrograms f32[B, frames, bands, 1], as input and target."""

    mel: Mel

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Applies the change to one batch; the mask counts frames that begin before the end."""
        x = self.mel.log_mel(batch.x[..., 0])[..., None]
        mask = before(self.mel.frames(_length(arrays)), x.shape[1])
        return batch._replace(x=x, target=x, mask=mask[..., None, None])


@dataclasses.dataclass(frozen=True)
class Companded:
    """Replaces samples by the nearest of `levels` mu-law values in [0, 1], as input and target."""

    levels: int = 256

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Applies the change to one batch of sounds f32[B, T, 1]."""
        x = jnp.round(mu_law(batch.x) * (self.levels - 1)) / (self.levels - 1)
        return batch._replace(x=x, target=x)


@dataclasses.dataclass(frozen=True)
class Duration:
    """Appends the share of the padded length that a recording fills to the context, f32[B, C + 1].

    A model given it need not code how long a sound is, and its samples have a known end.
    """

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Applies the change to one batch whose context is an array or None."""
        share = _length(arrays)[:, None] / jnp.float32(jnp.shape(arrays["sound"])[1])
        own = [] if batch.context is None else [batch.context]
        return batch._replace(context=jnp.concatenate([*own, share], axis=-1))


def before(end: Array, size: int) -> Array:
    """Returns 1 at the places before the end and 0 from there on, f32[B, size], from i32[B]."""
    return (jnp.arange(size)[None] < end[:, None]).astype(jnp.float32)


def _length(arrays: Mapping[str, Any]) -> Array:
    if "length" not in arrays:
        raise UserError("these examples are no sounds: take them from ae.data.sounds")
    return jnp.asarray(arrays["length"])
