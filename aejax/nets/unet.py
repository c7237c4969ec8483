"""A decoder that refines a first picture by a U-Net, with skip connections at each resolution."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.events import flatten, join_context
from aejax.nets.convolution import Convolution
from aejax.nets.resnet import NormedResidual
from aejax.types import Array


class UDecoder(nn.Module):
    """Maps z to a picture at full resolution, and refines it by a U-Net (Ronneberger et al. 2015).

    Each stage is a residual block with group norm (`NormedResidual`), so this is also the decoder
    to pair with `ResNet`.

    Attributes:
      shape: (height, width, ...), the shape of one output; further axes are channels.
      widths: the number of channels at each resolution, from the full one down.
      activation: the activation before each convolution.
      dtype: the dtype of the computation; parameters and output stay float32.
    """

    shape: Sequence[int]
    widths: Sequence[int] = (16, 32, 64)
    activation: Callable[[Array], Array] = nn.silu
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Maps [B, ...] to f32[B, *shape]."""
        height, width, *channels = self.shape
        count, shrink = math.prod(channels), 2 ** (len(self.widths) - 1)
        # A U-Net needs sizes that can be halved repeatedly; the excess is cropped at the end.
        tall, wide = (shrink * math.ceil(side / shrink) for side in (height, width))
        hidden = join_context(flatten(values), context)
        hidden = nn.Dense(tall * wide * self.widths[0], dtype=self.dtype, name="dense")(hidden)
        hidden = hidden.reshape((-1, tall, wide, self.widths[0]))
        kept = []
        for i, size in enumerate(self.widths):
            if i:
                hidden = nn.avg_pool(hidden, (2, 2), (2, 2))
            hidden = self._block(size, f"down_{i}")(hidden)
            kept.append(hidden)
        for i, size in reversed(list(enumerate(self.widths[:-1]))):
            batch, rows, columns, old = hidden.shape
            hidden = jax.image.resize(hidden, (batch, 2 * rows, 2 * columns, old), "nearest")
            hidden = self._block(size, f"up_{i}")(jnp.concatenate([hidden, kept[i]], axis=-1))
        hidden = self.activation(hidden)[:, :height, :width]
        output = Convolution(count, (3, 3), dtype=self.dtype, name="output")(hidden)
        return output.astype(jnp.float32).reshape((-1, *self.shape))

    def _block(self, size: int, name: str) -> NormedResidual:
        return NormedResidual(size, activation=self.activation, dtype=self.dtype, name=name)
