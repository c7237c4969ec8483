"""Changes of batches of sounds: masks, companding, durations; and spectrograms instead of sounds.

changed(spectrograms(train, Mel()), Attributes(digit=10, speaker=6), Duration())
changed(train, Companded(256))
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax.data.sound.files import SCALE
from aejax.data.split import Split, fingerprint
from aejax.data.to_batch import Prepare
from aejax.errors import UserError
from aejax.sound.companding import mu_law
from aejax.sound.mel import Mel
from aejax.types import Array, Batch, Key

ROWS = 200  # sounds whose spectrograms are computed at a time


@dataclasses.dataclass(frozen=True)
class Ended:
    """Sets the mask to 1 within each recording and to 0 after its end, f32[B, T, 1, ...].

    The axis T counts samples, or frames of `hop` samples. A frame lies within a recording if the
    frame's first sample does.
    """

    hop: int = 1

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Returns a batch of sounds or spectrograms f32[B, T, ...] with a mask of their ends."""
        shape = batch.target.shape
        mask = before(-(-_column(arrays, "length") // self.hop), shape[1])
        return batch._replace(mask=mask.reshape((*shape[:2], *(1,) * (len(shape) - 2))))


@dataclasses.dataclass(frozen=True)
class Companded:
    """Replaces each sample of input and target by the nearest of `levels` mu-law values, [0, 1]."""

    levels: int = 256

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Returns a batch of sounds f32[B, T, 1] with mu-law values as input and target."""
        x = jnp.round(mu_law(batch.x) * (self.levels - 1)) / (self.levels - 1)
        return batch._replace(x=x, target=x)


@dataclasses.dataclass(frozen=True)
class Duration:
    """Appends the share of the padded length that a recording fills to the context, f32[B, C + 1].

    With it, the latents need not store how long a sound is, and it is known where a sound drawn
    from the model ends.
    """

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Returns the batch with the durations appended to its context, or as its only context."""
        share = _column(arrays, "share")[:, None]
        own = [] if batch.context is None else [batch.context]
        return batch._replace(context=jnp.concatenate([*own, share], axis=-1))


@functools.lru_cache(maxsize=8)
def spectrograms(split: Split, mel: Mel) -> Split:
    """Returns a split of log-mel spectrograms f32[B, frames, bands, 1] in place of sounds.

    They are computed once, here, because computing them in each training step would cost as much
    as a small net.

    Args:
      split: a split of `ae.data.sounds`; the changes that it has are kept.
      mel: the settings of the spectrogram.

    Raises:
      UserError: if the split holds no sounds.
    """
    arrays = dict(split.arrays)
    sound = np.asarray(_column(arrays, "sound"))[..., 0]
    del arrays["sound"]
    compute = jax.jit(mel.log_mel)
    parts = [
        np.asarray(compute(sound[start : start + ROWS].astype(np.float32) / np.float32(SCALE)))
        for start in range(0, len(sound), ROWS)
    ]
    arrays["mel"] = np.concatenate(parts)[..., None]
    prepare = split.prepare
    assert isinstance(prepare, Prepare)
    changes = (Ended(mel.hop) if isinstance(old, Ended) else old for old in prepare.changes)
    prepare = dataclasses.replace(prepare, field="mel", scale=1.0, changes=tuple(changes))
    return dataclasses.replace(
        split, arrays=arrays, prepare=prepare, fingerprint=fingerprint(arrays)
    )


def before(end: Array, size: int) -> Array:
    """Returns a mask f32[B, size], whose row b is 1 at its first end[b] entries and 0 elsewhere."""
    return (jnp.arange(size)[None] < end[:, None]).astype(jnp.float32)


def _column(arrays: Mapping[str, Any], name: str) -> Array:
    if name not in arrays:
        raise UserError(
            f"these examples are no sounds, since they have no array {name!r}: load a split with "
            "ae.data.sounds"
        )
    return jnp.asarray(arrays[name])
