"""The gated PixelCNN: a net whose output at a pixel sees only the pixels before it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.kernels.conv import convolve
from aejax.types import Array


class GatedLayer(nn.Module):
    """One layer of two stacks (van den Oord et al. 2016b, figure 2).

    Attributes:
      channels: of each stack.
      kernel: height and width of what a layer sees, odd; half of it lies ahead and is left out.
      dtype: of the computation.
    """

    channels: int
    kernel: int
    dtype: Any

    @nn.compact
    def __call__(self, above: Array, before: Array, conditioning: Array) -> tuple[Array, Array]:
        """The two stacks f32[B, H, W, channels] one layer on.

        Args:
          above: at (r, c), of rows up to r.
          before: at (r, c), of rows up to r - 1, and of row r up to the column before c.
          conditioning: f32[B, H, W, F], read by both at each pixel; F may be 0.
        """
        half, width = self.kernel // 2, 2 * self.channels
        tall, rows = (half + 1, self.kernel), ((half, 0), (half, half))
        convolution = functools.partial(nn.Conv, conv_general_dilated=convolve, dtype=self.dtype)
        above = convolution(width, tall, padding=rows, name="above")(above)
        across = ((0, 0), (half, 0))
        level = convolution(width, (1, half + 1), padding=across, name="before")
        # A row down, so that what has seen row r informs row r + 1.
        down = jnp.pad(above, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
        new = level(before) + nn.Dense(width, dtype=self.dtype, name="down")(down)
        if conditioning.shape[-1]:
            above += nn.Dense(width, False, self.dtype, name="condition_above")(conditioning)
            new += nn.Dense(width, False, self.dtype, name="condition_before")(conditioning)
        output = nn.Dense(self.channels, dtype=self.dtype, name="output")
        return _gate(above), before + output(_gate(new))


class GatedPixelCNN(nn.Module):
    """Stacked gated layers: numbers for each pixel that see the pixels before it in raster order.

    Attributes:
      outputs: numbers for each pixel.
      channels: of each layer.
      layers: how many; the output sees kernel // 2 * layers + 1 rows above its own.
      kernel: height and width of what a layer sees, odd.
      dtype: of the computation; parameters and output stay float32.
    """

    outputs: int
    channels: int
    layers: int
    kernel: int
    dtype: Any = None

    @nn.compact
    def __call__(self, image: Array, conditioning: Array) -> Array:
        """f32[B, H, W, C], f32[B, H, W, F] -> f32[B, H, W, outputs]."""
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
        """Rows above its own that an output depends on."""
        return self.kernel // 2 * self.layers + 1


def _gate(values: Array) -> Array:
    """tanh(a) sigmoid(b) of the two halves of the channels (equation 2)."""
    signal, gate = jnp.split(values, 2, axis=-1)
    return jnp.tanh(signal) * jax.nn.sigmoid(gate)
