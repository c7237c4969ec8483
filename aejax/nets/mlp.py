"""Fully connected nets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from aejax.events import flatten, join_context
from aejax.types import Array


class MLP(nn.Module):
    """Dense layers, each followed by the activation; a decoder ends in a linear one of `shape`.

    Attributes:
      widths: units of each hidden layer.
      shape: of one example's output, the linear last layer; None for an encoder, whose features
        are the last hidden layer.
      activation: between the layers.
      dtype: of the computation (say jnp.bfloat16); parameters and outputs of `shape` stay float32.
    """

    widths: Sequence[int]
    shape: Sequence[int] | None = None
    activation: Callable[[Array], Array] = nn.relu
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """[B, *event] -> f32[B, widths[-1]], or f32[B, *shape]."""
        hidden = join_context(flatten(values), context)
        for i, width in enumerate(self.widths):
            hidden = self.activation(nn.Dense(width, dtype=self.dtype, name=f"hidden_{i}")(hidden))
        if self.shape is None:
            return hidden
        output = nn.Dense(math.prod(self.shape), dtype=self.dtype, name="output")(hidden)
        return output.astype(jnp.float32).reshape((-1, *self.shape))
