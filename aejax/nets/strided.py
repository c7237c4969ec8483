"""The plain strided convolutional nets that disentanglement is usually measured with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from aejax.events import flatten, join_context
from aejax.nets.convolution import Convolution, TransposedConvolution
from aejax.types import Array


class Strided(nn.Module):
    """Encoder: convolutions of stride 2, then a dense layer (Locatello et al. 2019, table 1).

    Attributes:
      channels: of each convolution.
      kernels: height and width of each.
      features: units of the dense last layer.
      activation: after each layer.
      dtype: of the computation; parameters stay float32.
    """

    channels: Sequence[int] = (32, 32, 64, 64)
    kernels: Sequence[int] = (4, 4, 2, 2)
    features: int = 256
    activation: Callable[[Array], Array] = nn.relu
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """[B, H, W, C] -> [B, features]; the context joins before the dense layer."""
        hidden = values
        for i, (width, kernel) in enumerate(zip(self.channels, self.kernels, strict=True)):
            layer = Convolution(width, (kernel, kernel), 2, dtype=self.dtype, name=f"down_{i}")
            hidden = self.activation(layer(hidden))
        hidden = join_context(flatten(hidden), context)
        return self.activation(nn.Dense(self.features, dtype=self.dtype, name="dense")(hidden))


class Transposed(nn.Module):
    """Decoder: two dense layers, then transposed convolutions of stride 2 (the same table).

    Attributes:
      shape: (height, width, channels) of one output, of any height and width.
      channels: of each transposed convolution but the last, which ends in those of the shape.
      kernel: height and width of each.
      features: units of the first dense layer; the second makes the smallest image.
      activation: between the layers.
      dtype: of the computation; parameters and output stay float32.
    """

    shape: Sequence[int]
    channels: Sequence[int] = (64, 32, 32)
    kernel: int = 4
    features: int = 256
    activation: Callable[[Array], Array] = nn.relu
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """[B, ...] -> f32[B, *shape]."""
        height, width, colours = self.shape
        shrink = 2 ** (len(self.channels) + 1)
        small = (math.ceil(height / shrink), math.ceil(width / shrink), self.channels[0])
        hidden = join_context(flatten(values), context)
        hidden = self.activation(nn.Dense(self.features, dtype=self.dtype, name="dense")(hidden))
        hidden = nn.Dense(math.prod(small), dtype=self.dtype, name="image")(hidden)
        hidden = self.activation(hidden).reshape((-1, *small))
        kernel = (self.kernel, self.kernel)
        for i, stage in enumerate((*self.channels, colours)):
            layer = TransposedConvolution(stage, kernel, (2, 2), dtype=self.dtype, name=f"up_{i}")
            hidden = layer(hidden if i == 0 else self.activation(hidden))
        # Sizes that no power of two divides come out a little too large and are cut.
        return hidden[:, :height, :width].astype(jnp.float32)
