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
    """x + conv(act(conv(act(x)))), pre-activation form (He et al. 2016, figure 4e)."""

    activation: Activation
    dtype: Any

    @nn.compact
    def __call__(self, values: Array) -> Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        width = values.shape[-1]
        hidden = Convolution(width, (3, 3), dtype=self.dtype)(self.activation(values))
        # The second convolution starts at zero, so that a fresh block is the identity.
        zeros = nn.initializers.zeros_init()
        hidden = Convolution(width, (3, 3), dtype=self.dtype, kernel_init=zeros)(
            self.activation(hidden)
        )
        return values + hidden


class Conv(nn.Module):
    """Encoder of images: each stage halves height and width, then a residual block.

    Attributes:
      widths: channels of each stage.
      features: units of the dense last layer.
      activation: between the layers.
      dtype: of the computation; parameters stay float32.
    """

    widths: Sequence[int] = (32, 64)
    features: int = 256
    activation: Activation = nn.silu
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """[B, H, W, C] -> [B, features]; the context joins before the dense layer."""
        hidden = values
        for i, width in enumerate(self.widths):
            halve = Convolution(width, (3, 3), 2, dtype=self.dtype, name=f"down_{i}")
            hidden = halve(hidden)
            hidden = Residual(self.activation, self.dtype, name=f"block_{i}")(hidden)
        hidden = join_context(flatten(self.activation(hidden)), context)
        return self.activation(nn.Dense(self.features, dtype=self.dtype, name="dense")(hidden))


class Deconv(nn.Module):
    """Decoder of images: the stages of `Conv` backwards, each doubling height and width.

    Attributes:
      shape: (height, width, ...) of one output, of any height and width; what follows, such as
        (channels, 2) for a likelihood of two numbers an element, are channels of the last layer.
      widths: channels of each stage, from the smallest image to the largest.
      activation: between the layers.
      dtype: of the computation; parameters and output stay float32.
    """

    shape: Sequence[int]
    widths: Sequence[int] = (64, 32)
    activation: Activation = nn.silu
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """[B, ...] -> f32[B, *shape]."""
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
        # Sizes that no power of two divides come out a little too large and are cut.
        hidden = self.activation(hidden)[:, :height, :width]
        output = Convolution(math.prod(channels), (3, 3), dtype=self.dtype, name="output")(hidden)
        return output.astype(jnp.float32).reshape((-1, *self.shape))
