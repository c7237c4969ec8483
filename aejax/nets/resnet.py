"""A residual encoder of images with group norm, which treats each example independently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from aejax.events import join_context
from aejax.nets.convolution import Convolution
from aejax.types import Array


class NormedResidual(nn.Module):
    """Computes skip(x) + conv(act(norm(conv(act(norm(x)))))) (He et al. 2016; Wu and He 2018).

    Attributes:
      width: the number of channels of the output.
      groups: the number of groups of the norm; if it does not divide the number of channels, the
        largest smaller number that does is used.
      activation: the activation before each convolution.
      dtype: the dtype of the computation; parameters stay float32.
    """

    width: int
    groups: int = 8
    activation: Callable[[Array], Array] = nn.silu
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array) -> Array:
        """Maps [B, H, W, C] to [B, H, W, width]."""
        hidden = values
        for i in range(2):
            count = next(g for g in range(self.groups, 0, -1) if hidden.shape[-1] % g == 0)
            hidden = nn.GroupNorm(count, dtype=self.dtype, name=f"norm_{i}")(hidden)
            convolve = Convolution(self.width, (3, 3), dtype=self.dtype, name=f"conv_{i}")
            hidden = convolve(self.activation(hidden))
        if values.shape[-1] != self.width:
            values = Convolution(self.width, (1, 1), dtype=self.dtype, name="skip")(values)
        return values + hidden


class ResNet(nn.Module):
    """Encodes images by stages of residual blocks; all stages but the first halve the image.

    Attributes:
      widths: the number of channels of each stage.
      blocks: the number of residual blocks of a stage.
      groups: the largest number of groups of a norm.
      activation: the activation before each convolution.
      dtype: the dtype of the computation; parameters stay float32.
    """

    widths: Sequence[int] = (32, 64, 128)
    blocks: int = 2
    groups: int = 8
    activation: Callable[[Array], Array] = nn.silu
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Maps [B, H, W, C] to the mean over pixels, [B, widths[-1]], with the context appended."""
        hidden = values
        for i, width in enumerate(self.widths):
            down = Convolution(width, (3, 3), 1 if i == 0 else 2, dtype=self.dtype, name=f"in_{i}")
            hidden = down(hidden)
            for j in range(self.blocks):
                name = f"block_{i}_{j}"
                block = NormedResidual(width, self.groups, self.activation, self.dtype, name=name)
                hidden = block(hidden)
        return join_context(jnp.mean(self.activation(hidden), axis=(1, 2)), context)
