"""The gated PixelCNN: a net whose output at a pixel depends only on earlier pixels."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.kernels.conv import convolve
from aejax.types import Array


class GatedLayer(nn.Module):
    """One layer of the vertical and the horizontal stack (van den Oord et al. 2016b, figure 2).

    Attributes:
      channels: the number of channels of each stack.
      kernel: the height and width of the kernel, an odd number; the part of the kernel that would
        cover later pixels is left out.
      dtype: the dtype of the computation.
    """

    channels: int
    kernel: int
    dtype: Any

    @nn.compact
    def __call__(self, above: Array, before: Array, conditioning: Array) -> tuple[Array, Array]:
        """Applies the layer to the two stacks, both f32[B, H, W, channels].

        Args:
          above: the vertical stack, which at (r, c) depends on the rows up to r.
          before: the horizontal stack, which at (r, c) depends on the rows up to r - 1 and on row r
            up to column c - 1.
          conditioning: f32[B, H, W, F], a further input of both stacks at each pixel; F may be 0.
        """
        half, width = self.kernel // 2, 2 * self.channels
        tall, rows = (half + 1, self.kernel), ((half, 0), (half, half))
        convolution = functools.partial(nn.Conv, conv_general_dilated=convolve, dtype=self.dtype)
        above = convolution(width, tall, padding=rows, name="above")(above)
        across = ((0, 0), (half, 0))
        level = convolution(width, (1, half + 1), padding=across, name="before")
        # The vertical stack is shifted down by a row, because at row r + 1 the horizontal stack may
        # depend on the rows up to r.
        down = jnp.pad(above, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
        new = level(before) + nn.Dense(width, dtype=self.dtype, name="down")(down)
        if conditioning.shape[-1]:
            above += nn.Dense(width, False, self.dtype, name="condition_above")(conditioning)
            new += nn.Dense(width, False, self.dtype, name="condition_before")(conditioning)
        output = nn.Dense(self.channels, dtype=self.dtype, name="output")
        return _gate(above), before + output(_gate(new))


class GatedPixelCNN(nn.Module):
    """Computes outputs for each pixel that depend on the earlier pixels in raster order.

    Attributes:
      outputs: the number of outputs for each pixel.
      channels: the number of channels of each layer.
      layers: the number of gated layers; an output depends on `reach` rows above its own.
      kernel: the height and width of the kernels, an odd number.
      dtype: the dtype of the computation; parameters and output stay float32.
    """

    outputs: int
    channels: int
    layers: int
    kernel: int
    dtype: Any = None

    @nn.compact
    def __call__(self, image: Array, conditioning: Array) -> Array:
        """Maps an image f32[B, H, W, C] and its conditioning to f32[B, H, W, outputs]."""
        above = nn.Dense(self.channels, dtype=self.dtype, name="input_above")(image)
        shifted = jnp.pad(image, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]
        before = nn.Dense(self.channels, dtype=self.dtype, name="input_before")(shifted)
        for i in range(self.layers):
            layer = GatedLayer(self.channels, self.kernel, self.dtype, name=f"layer_{i}")
            above, before = layer(above, before, conditioning)
        hidden = nn.Dense(self.channels, dtype=self.dtype, name="hidden")(nn.relu(before))
        output = nn.Dense(self.outputs, dtype=self.dtype, name="output")(nn.relu(hidden))
        return output.astype(jnp.float32)

    @property
    def reach(self) -> int:
        """Returns how many rows above a pixel can influence the output at that pixel."""
        return self.kernel // 2 * self.layers + 1


def _gate(values: Array) -> Array:
    """Computes tanh(a) sigmoid(b), where a and b are halves of the channels (equation 2)."""
    signal, gate = jnp.split(values, 2, axis=-1)
    return jnp.tanh(signal) * jax.nn.sigmoid(gate)
