"""Strided residual convolutional nets for small images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from aejax.events import flatten, join_context
from aejax.nets.convolution import Convolution, TransposedConvolution
from aejax.types import Array

Activation = Callable[[Array], Array]


class Residual(nn.Module):
    """Computes x + conv(act(conv(act(x)))), the pre-activation form (He et al. 2016, figure 4e).

    Attributes:
      activation: the activation before each convolution.
      dtype: the dtype of the computation; parameters stay float32.
    """

    activation: Activation
    dtype: Any

    @nn.compact
    def __call__(self, values: Array) -> Array:
        """Maps [B, H, W, C] to [B, H, W, C]."""
        width = values.shape[-1]
        hidden = Convolution(width, (3, 3), dtype=self.dtype)(self.activation(values))
        # The second kernel is initially zero, so that an untrained block is the identity.
        zeros = nn.initializers.zeros_init()
        hidden = Convolution(width, (3, 3), dtype=self.dtype, kernel_init=zeros)(
            self.activation(hidden)
        )
        return values + hidden


class Conv(nn.Module):
    """Encodes images in stages, each a convolution of stride 2 and a residual block.

    Attributes:
      widths: the number of channels of each stage.
      features: the number of units of the last layer, which is dense.
      activation: the activation between the layers.
      dtype: the dtype of the computation; parameters stay float32.
    """

    widths: Sequence[int] = (32, 64)
    features: int = 256
    activation: Activation = nn.silu
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Maps [B, H, W, C] to [B, features]; the context is appended before the dense layer."""
        hidden = values
        for i, width in enumerate(self.widths):
            halve = Convolution(width, (3, 3), 2, dtype=self.dtype, name=f"down_{i}")
            hidden = halve(hidden)
            hidden = Residual(self.activation, self.dtype, name=f"block_{i}")(hidden)
        hidden = join_context(flatten(self.activation(hidden)), context)
        return self.activation(nn.Dense(self.features, dtype=self.dtype, name="dense")(hidden))


class Deconv(nn.Module):
    """Decodes to images by the stages of `Conv` in reverse order; each doubles height and width.

    Attributes:
      shape: (height, width, ...), the shape of one output, with any height and width. The further
        axes are channels of the last layer, such as (channels, 2) for a likelihood that needs two
        numbers per element.
      widths: the number of channels of each stage, from the smallest image to the largest.
      activation: the activation between the layers.
      dtype: the dtype of the computation; parameters and output stay float32.
    """

    shape: Sequence[int]
    widths: Sequence[int] = (64, 32)
    activation: Activation = nn.silu
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Maps [B, ...] to f32[B, *shape]."""
        height, width, *channels = self.shape
        shrink = 2 ** len(self.widths)
        small = (math.ceil(height / shrink), math.ceil(width / shrink), self.widths[0])
        hidden = join_context(flatten(values), context)
        hidden = nn.Dense(math.prod(small), dtype=self.dtype, name="dense")(hidden)
        hidden = hidden.reshape((-1, *small))
        for i, stage in enumerate(self.widths):
            hidden = Residual(self.activation, self.dtype, name=f"block_{i}")(hidden)
            hidden = TransposedConvolution(stage, (4, 4), (2, 2), dtype=self.dtype, name=f"up_{i}")(
                self.activation(hidden)
            )
        # If height or width is no multiple of 2^stages, the image is too large here and is cropped.
        hidden = self.activation(hidden)[:, :height, :width]
        output = Convolution(math.prod(channels), (3, 3), dtype=self.dtype, name="output")(hidden)
        return output.astype(jnp.float32).reshape((-1, *self.shape))
