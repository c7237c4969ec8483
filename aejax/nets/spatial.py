"""Convolutional nets whose code is a map: one vector for each patch of a picture.

These nets do not accept a context, so the codes must contain everything that a picture shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn

from aejax.errors import UserError
from aejax.nets.convolution import Convolution, TransposedConvolution
from aejax.types import Array


class SpatialEncoder(nn.Module):
    """Encodes pictures by convolutions that halve height and width, and a last one that does not.

    Attributes:
      widths: the number of channels of each convolution.
    """

    widths: Sequence[int] = (32, 32)

    @nn.compact
    def __call__(self, values: Array) -> Array:
        """Maps [B, H, W, C] to f32[B, H / 2^n, W / 2^n, widths[-1]] by n = len(widths) stages."""
        hidden = values
        for i, width in enumerate(self.widths):
            hidden = nn.silu(Convolution(width, (4, 4), 2, name=f"down_{i}")(hidden))
        return Convolution(self.widths[-1], (3, 3), name="mix")(hidden)


class SpatialDecoder(nn.Module):
    """Decodes maps to pictures by one convolution and stages that double height and width.

    Attributes:
      shape: (height, width, channels) of one output; height and width are multiples of 2^n for n
        stages.
      widths: the number of channels of each stage's input.
    """

    shape: Sequence[int]
    widths: Sequence[int] = (32, 32)

    @nn.compact
    def __call__(self, values: Array) -> Array:
        """Maps f32[B, H / 2^n, W / 2^n, C] to f32[B, *shape].

        Raises:
          UserError: if the pictures decoded from a map of this size do not have the given shape.
        """
        factor = 2 ** len(self.widths)
        if values.ndim != 4:
            raise UserError(
                f"SpatialDecoder needs maps [B, height, width, channels], but z has shape "
                f"{values.shape}: give a vector to nets.UDecoder or nets.Deconv, or use a "
                "bottleneck of maps, such as VectorQuantised"
            )
        size = (values.shape[1] * factor, values.shape[2] * factor)
        if size != tuple(self.shape[:2]):
            raise UserError(
                f"SpatialDecoder decodes maps of {values.shape[1]}x{values.shape[2]} to pictures "
                f"of {size[0]}x{size[1]}, but its shape is {tuple(self.shape)}: change the shape, "
                "the number of widths, or the size of the bottleneck's maps"
            )
        hidden = Convolution(self.widths[0], (3, 3), name="mix")(values)
        for i, width in enumerate((*self.widths[1:], self.shape[2])):
            up = TransposedConvolution(width, (4, 4), (2, 2), name=f"up_{i}")
            hidden = up(nn.silu(hidden))
        return hidden.astype(jnp.float32)


class Pyramid(nn.Module):
    """Encodes pictures by convolutions that halve them, and returns the maps of all of them.

    These are features for `losses.perceptual`, once the net is trained for another purpose.

    Attributes:
      widths: the number of channels of each map.
    """

    widths: Sequence[int] = (16, 32, 48)

    @nn.compact
    def __call__(self, values: Array) -> tuple[Array, ...]:
        """Maps [B, H, W, C] to maps with H / 2, H / 4, ... rows, the finest first."""
        found, hidden = [], values
        for i, width in enumerate(self.widths):
            hidden = nn.relu(Convolution(width, (4, 4), 2, name=f"down_{i}")(hidden))
            found.append(hidden)
        return tuple(found)


class PatchCritic(nn.Module):
    """Judges overlapping patches of pictures by strided convolutions (Isola et al. 2017).

    Attributes:
      widths: the number of channels of each convolution that halves height and width.
    """

    widths: Sequence[int] = (32, 64)

    @nn.compact
    def __call__(self, values: Array) -> Array:
        """Maps [B, H, W, C] to a logit for each patch, f32[B, H / 2^n, W / 2^n, 1]."""
        hidden = values
        for i, width in enumerate(self.widths):
            hidden = Convolution(width, (4, 4), 2, name=f"down_{i}")(hidden)
            hidden = nn.leaky_relu(hidden, 0.2)
        return Convolution(1, (3, 3), name="judge")(hidden).astype(jnp.float32)
