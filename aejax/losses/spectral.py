"""The multi-resolution STFT distance of sounds as a loss term."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from aejax.events import without_missing
from aejax.sound.distance import SIZES, stft_distance
from aejax.types import Array, Forward, Term


def spectral(sizes: Sequence[int] = SIZES, wave: Callable[[Array], Array] = lambda x: x) -> Term:
    """Returns a term: the STFT distance between the target and the prediction's mean, f32[B].

    See `aejax.sound.stft_distance` (Yamamoto et al. 2020). The distance has no unit.

    Args:
      sizes: the numbers of samples in a frame, one for each resolution.
      wave: converts targets and means to samples in [-1, 1], such as `aejax.sound.expand`.
    """

    def spectral(model: Any, forward: Forward) -> Array:
        batch = without_missing(forward.batch)
        size = batch.target.shape[0]
        real, made = (
            wave(values).reshape((size, -1))
            for values in (batch.target, model.mean(forward.prediction))
        )
        mask = batch.mask
        if mask is not None:
            mask = jnp.broadcast_to(mask, batch.target.shape).reshape((size, -1))
        return stft_distance(real, made, mask, sizes)

    return spectral
