"""Transformers over the patches of a picture, as an encoder and as a decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from aejax.errors import UserError
from aejax.events import flatten, join_context
from aejax.nets.call import training
from aejax.types import Array


class TransformerBlock(nn.Module):
    """The pre-norm transformer block: self-attention, then a dense net (Xiong et al. 2020).

    Each of the two reads the layer-normalised values, and its output is added to the values.

    Attributes:
      heads: the number of heads, which divides the width.
      dropout: the share of units that are dropped in training.
      dtype: the dtype of the computation; parameters stay float32.
    """

    heads: int = 4
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array) -> Array:
        """Maps [B, patches, width] to the same shape."""
        width = values.shape[-1]
        drop = nn.Dropout(self.dropout, deterministic=not training(self))
        attention = nn.MultiHeadDotProductAttention(self.heads, dtype=self.dtype, name="attention")
        hidden = attention(nn.LayerNorm(dtype=self.dtype, name="norm_0")(values))
        values = values + drop(hidden)
        hidden = nn.LayerNorm(dtype=self.dtype, name="norm_1")(values)
        hidden = nn.gelu(nn.Dense(4 * width, dtype=self.dtype, name="up")(hidden))
        hidden = nn.Dense(width, dtype=self.dtype, name="down")(hidden)
        return values + drop(hidden)


class PatchEncoder(nn.Module):
    """Encodes pictures by a transformer over their patches (Dosovitskiy et al. 2021).

    Attributes:
      patch: the side of a patch in pixels, which divides height and width.
      width: the number of features of a patch.
      depth: the number of blocks.
      heads: the number of heads of a block.
      dropout: the share of units that are dropped in training.
      dtype: the dtype of the computation; parameters stay float32.
    """

    patch: int = 4
    width: int = 64
    depth: int = 4
    heads: int = 4
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Maps [B, H, W, C] to the mean over the patches, [B, width], with the context appended."""
        rows, columns = _grid(values.shape[1:3], self.patch)
        side = self.patch
        parts = values.reshape((-1, rows, side, columns, side, values.shape[-1]))
        parts = parts.transpose((0, 1, 3, 2, 4, 5)).reshape((len(values), rows * columns, -1))
        hidden = nn.Dense(self.width, dtype=self.dtype, name="embed")(parts)
        hidden = hidden + _places(self, rows * columns, self.width)
        for i in range(self.depth):
            block = TransformerBlock(self.heads, self.dropout, self.dtype, name=f"block_{i}")
            hidden = block(hidden)
        hidden = nn.LayerNorm(dtype=self.dtype, name="norm")(hidden)
        return join_context(jnp.mean(hidden, axis=1), context)


class PatchDecoder(nn.Module):
    """Decodes z by a transformer with one position for each patch of the picture.

    Attributes:
      shape: (height, width, ...), the shape of one output; further axes are channels.
      patch: the side of a patch in pixels, which divides height and width.
      width: the number of features of a patch.
      depth: the number of blocks.
      heads: the number of heads of a block.
      dropout: the share of units that are dropped in training.
      dtype: the dtype of the computation; parameters and output stay float32.
    """

    shape: Sequence[int]
    patch: int = 4
    width: int = 64
    depth: int = 4
    heads: int = 4
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Maps [B, ...] to f32[B, *shape]."""
        rows, columns = _grid(self.shape[:2], self.patch)
        side, channels = self.patch, math.prod(self.shape[2:])
        seen = join_context(flatten(values), context)
        hidden = nn.Dense(self.width, dtype=self.dtype, name="dense")(seen)[:, None]
        hidden = hidden + _places(self, rows * columns, self.width)
        for i in range(self.depth):
            block = TransformerBlock(self.heads, self.dropout, self.dtype, name=f"block_{i}")
            hidden = block(hidden)
        hidden = nn.LayerNorm(dtype=self.dtype, name="norm")(hidden)
        output = nn.Dense(side * side * channels, dtype=self.dtype, name="output")(hidden)
        output = output.reshape((-1, rows, columns, side, side, channels))
        output = output.transpose((0, 1, 3, 2, 4, 5)).astype(jnp.float32)
        return output.reshape((-1, *self.shape))


def _places(module: nn.Module, places: int, width: int) -> Array:
    """Returns the learned embeddings of the positions of patches, f32[1, places, width]."""
    return module.param("places", nn.initializers.normal(0.02), (1, places, width))


def _grid(sides: Sequence[int], patch: int) -> tuple[int, int]:
    if sides[0] % patch or sides[1] % patch:
        raise UserError(
            f"pictures of {sides[0]} x {sides[1]} pixels cannot be divided into patches of "
            f"{patch} x {patch} pixels: choose a patch size that divides height and width"
        )
    return sides[0] // patch, sides[1] // patch
