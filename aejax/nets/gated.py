"""The gated convolutional nets of the VampPrior paper, for small images.

A gated layer is the product of a linear map and the sigmoid of another (Dauphin et al. 2017). A
dense gated layer is `MLP((2 * width,), activation=jax.nn.glu)`, where half of the units are gates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from flax import linen as nn

from aejax.events import flatten, join_context
from aejax.nets.convolution import Convolution
from aejax.types import Array


class GatedConv(nn.Module):
    """Encodes images by a sequence of gated convolutions, whose output is flattened.

    Attributes:
      stages: (channels, kernel size, stride) of each layer.
    """

    stages: Sequence[tuple[int, int, int]]

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Maps [B, H, W, C] to f32[B, features]; the context is appended to the features."""
        hidden = values
        for i, (width, kernel, stride) in enumerate(self.stages):
            conv = Convolution(2 * width, (kernel, kernel), stride, name=f"conv_{i}")
            hidden = nn.glu(conv(hidden))
        return join_context(flatten(hidden), context)


class GatedImage(nn.Module):
    """Decodes z to an image by a gated dense layer, whose output has the image's size, and gated
    convolutions that keep this size.

    Attributes:
      shape: (height, width, channels) of one output.
      widths: the number of channels of each convolution.
    """

    shape: Sequence[int]
    widths: Sequence[int] = (64, 64, 64, 64)

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Maps [B, ...] to f32[B, *shape]."""
        hidden = join_context(flatten(values), context)
        hidden = nn.glu(nn.Dense(2 * math.prod(self.shape), name="dense")(hidden))
        hidden = hidden.reshape((-1, *self.shape))
        for i, width in enumerate(self.widths):
            hidden = nn.glu(Convolution(2 * width, (3, 3), name=f"conv_{i}")(hidden))
        return Convolution(self.shape[-1], (1, 1), name="output")(hidden)
