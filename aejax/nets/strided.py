"""The strided convolutional nets that studies of disentanglement usually use."""

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
    """Encodes images by convolutions of stride 2 and a dense layer.

    The architecture is that of Locatello et al. 2019, table 1.

    Attributes:
      channels: the number of channels of each convolution.
      kernels: the kernel size of each convolution, its height and width.
      features: the number of units of the last layer, which is dense.
      activation: the activation after each layer.
      dtype: the dtype of the computation; parameters stay float32.
    """

    channels: Sequence[int] = (32, 32, 64, 64)
    kernels: Sequence[int] = (4, 4, 2, 2)
    features: int = 256
    activation: Callable[[Array], Array] = nn.relu
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Maps [B, H, W, C] to [B, features]; the context is appended before the dense layer."""
        hidden = values
        for i, (width, kernel) in enumerate(zip(self.channels, self.kernels, strict=True)):
            layer = Convolution(width, (kernel, kernel), 2, dtype=self.dtype, name=f"down_{i}")
            hidden = self.activation(layer(hidden))
        hidden = join_context(flatten(hidden), context)
        return self.activation(nn.Dense(self.features, dtype=self.dtype, name="dense")(hidden))


class Transposed(nn.Module):
    """Decodes by two dense layers and transposed convolutions of stride 2.

    The architecture is that of Locatello et al. 2019, table 1.

    Attributes:
      shape: (height, width, channels) of one output, with any height and width.
      channels: the number of channels of each transposed convolution but the last, which has the
        channels of the shape.
      kernel: the kernel size of each transposed convolution, its height and width.
      features: the number of units of the first dense layer; the second outputs the first image.
      activation: the activation between the layers.
      dtype: the dtype of the computation; parameters and output stay float32.
    """

    shape: Sequence[int]
    channels: Sequence[int] = (64, 32, 32)
    kernel: int = 4
    features: int = 256
    activation: Callable[[Array], Array] = nn.relu
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Maps [B, ...] to f32[B, *shape]."""
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
        # If height or width is no multiple of 2^stages, the image is too large here and is cropped.
        return hidden[:, :height, :width].astype(jnp.float32)
