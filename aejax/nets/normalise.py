"""Normalises each example by its own statistics, and undoes this on the output."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from aejax.errors import UserError
from aejax.types import Array


class Normalised(NamedTuple):
    """Normalised examples, with the scale and shift that undo this: x * scale + shift."""

    x: Array  # f32[B, d]
    shift: Array  # f32[B, 1]
    scale: Array  # f32[B, 1]


def normalised(x: Array, how: str) -> Normalised:
    """Normalises each example by its own statistics.

    Args:
      x: f32[B, d].
      how: "layer_norm", which is (x - mean) / (std + 1e-5) with ddof 1; "constant_norm_rescale",
        which gives every example the norm sqrt(d); or "none".
    """
    zero, one = jnp.zeros((x.shape[0], 1)), jnp.ones((x.shape[0], 1))
    if how == "layer_norm":
        mean = jnp.mean(x, axis=-1, keepdims=True)
        std = jnp.std(x, axis=-1, keepdims=True, ddof=1)
        # Like the reference libraries, this adds epsilon to the divisor but not to the returned
        # std that the output is multiplied by.
        return Normalised((x - mean) / (std + 1e-5), mean, std)
    if how == "constant_norm_rescale":
        scale = jnp.linalg.norm(x, axis=-1, keepdims=True) / x.shape[-1] ** 0.5
        return Normalised(x / scale, zero, scale)
    return Normalised(x, zero, one)


class Normalise(nn.Module):
    """Normalises each example by its own statistics, or undoes this on the output.

    As an encoder it normalises the input. As `Dictionary(scale=Normalise())` it multiplies the
    output by the input's scale and adds the input's shift. It computes both from the input, which
    must therefore be the batch's context: Batch(x, target, context=x).

    Attributes:
      how: "layer_norm" or "constant_norm_rescale"; see `normalised`.
    """

    how: str = "layer_norm"

    def __call__(self, values: Array, context: Any = None) -> Array:
        """Normalises each example of values [B, *event]; returns f32[B, *event]."""
        flat = values.reshape((values.shape[0], -1)).astype(jnp.float32)
        return normalised(flat, self.how).x.reshape(values.shape)

    def measure(self, differences: Array, context: Any = None) -> Array:
        """Normalises differences f32[B, D] between values: divides them by the input's scale.

        The shift cancels in a difference.
        """
        return differences / self._of(context).scale

    def restore(self, scaled: Array, context: Any = None) -> Array:
        """Converts normalised values f32[B, D] back to the units before normalisation."""
        found = self._of(context)
        return scaled * found.scale + found.shift

    def _of(self, context: Any) -> Normalised:
        if context is None:
            raise UserError(
                "a Normalise in the decoder reads the input from the batch's context, but there is "
                "none: make batches as Batch(x, target, context=x)"
            )
        return normalised(context.reshape((context.shape[0], -1)).astype(jnp.float32), self.how)
