"""One-dimensional convolutional nets: from sounds to a vector per frame, and from these vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.errors import UserError
from aejax.events import join_context
from aejax.nets.convolution import Convolution
from aejax.types import Array


class WaveEncoder(nn.Module):
    """Encodes each frame of prod(strides) samples of a sound to a vector, by strided convolutions.

    Attributes:
      strides: the stride of each convolution; its kernel is twice as long.
      widths: the number of channels of each convolution.
    """

    strides: Sequence[int] = (8, 4, 4)
    widths: Sequence[int] = (16, 32, 64)

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Maps f32[B, T, C] to f32[B, T / prod(strides), widths[-1]].

        Raises:
          UserError: if T is not a multiple of the product of the strides.
        """
        hidden = values[:, None]
        for i, (stride, width) in enumerate(zip(self.strides, self.widths, strict=True)):
            if hidden.shape[2] % stride:
                raise UserError(
                    f"WaveEncoder has strides {tuple(self.strides)}, which do not divide "
                    f"{values.shape[1]} samples: pad or cut the sounds"
                )
            down = Convolution(width, (1, 2 * stride), (1, stride), name=f"down_{i}")
            hidden = nn.silu(down(hidden))
        return _mixed(self, hidden, context, 1)[:, 0]


class WaveDecoder(nn.Module):
    """Decodes a vector of each frame to a map of `channels` channels for `likelihoods.Wave`.

    Attributes:
      channels: the number of channels of the output.
      width: the number of channels of each layer.
      layers: the number of residual layers, each of which combines neighbouring frames.
    """

    channels: int
    width: int = 64
    layers: int = 2

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Maps f32[B, F, C] to f32[B, F, channels]."""
        hidden = nn.Dense(self.width, name="input")(values)[:, None]
        hidden = _mixed(self, hidden, context, self.layers)
        return nn.Dense(self.channels, name="output")(nn.silu(hidden[:, 0]))


def _mixed(module: nn.Module, hidden: Array, context: Any, layers: int) -> Array:
    """Applies residual layers to f32[B, 1, F, W]; each layer also reads the context."""
    width = hidden.shape[-1]
    for i in range(layers):
        inner = Convolution(width, (1, 3), name=f"mix_{i}")(nn.silu(hidden))
        if jax.tree.leaves(context):
            flat = join_context(jnp.zeros((hidden.shape[0], 0)), context)
            inner = inner + nn.Dense(width, name=f"context_{i}")(flat)[:, None, None]
        inner = nn.Dense(width, name=f"out_{i}")(nn.silu(inner))
        hidden = hidden + inner
    return hidden
