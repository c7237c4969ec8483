"""Prepare: rows of a data set, as they are stored, become a Batch on the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax.types import Array, Batch, Key


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Scales one array of a data set and, for a Bernoulli, draws its pixels.

    Two prepares with equal fields are equal, so that they compile once.
    """

    field: str  # which array is x
    scale: float = 1.0  # the stored value that means one
    draws: bool = False  # x is drawn from a Bernoulli whose mean is the scaled value
    context: str | None = None  # which array, if any, becomes Batch.context
    changes: tuple[Any, ...] = ()  # (key, batch, arrays) -> Batch, one after the other, hashable

    def __call__(self, key: Key | None, arrays: Mapping[str, Array]) -> Batch:
        """Prepares one batch.

        Args:
          key: Key[], of the draws; not read where `draws` is off.
          arrays: leaves [B, ...], as they are stored.

        Returns:
          Batch with x and target f32[B, *event], the same array, then what the changes make of it.
        """
        stored = jnp.asarray(arrays[self.field])
        if not self.draws:
            # A product: a compiler is free to turn a division by a constant into one, and then
            # the compiled batch would differ from this one in the last bit.
            x = stored.astype(jnp.float32) * np.float32(1.0 / self.scale)
        elif key is None:
            raise ValueError("a batch that is binarised by drawing needs a key")
        elif jnp.issubdtype(stored.dtype, jnp.unsignedinteger):
            x = _drawn_levels(key, stored, int(self.scale))
        else:
            x = jax.random.bernoulli(key, stored * np.float32(1.0 / self.scale)).astype(jnp.float32)
        context = None if self.context is None else jnp.asarray(arrays[self.context])
        batch = Batch(x=x, target=x, context=context)
        for i, change in enumerate(self.changes):
            # Noise of its own for each, and none that the drawn pixels depend on.
            own = None if key is None else jax.random.fold_in(key, i + 1)
            batch = change(own, batch, arrays)
        return batch


def _drawn_levels(key: Key, levels: Array, scale: int) -> Array:
    """Bernoulli draws f32[B, *event] with mean levels / scale, to 2^-16 and exact at 0 and 1.

    Two pixels share one random word of 32 bits: random bits are what binarising costs, and this
    halved a batch of 100 MNIST pictures on a CPU from 0.66 to 0.30 ms.
    """
    flat = levels.reshape(len(levels), -1).astype(jnp.uint32)
    pixels = flat.shape[1]
    words = jax.random.bits(key, (len(levels), (pixels + 1) // 2), jnp.uint32)
    halves = jnp.concatenate([words & 0xFFFF, words >> 16], axis=1)[:, :pixels]
    return (halves * np.uint32(scale) < flat << 16).astype(jnp.float32).reshape(levels.shape)
