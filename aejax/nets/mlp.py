"""Fully connected nets, and an activation that normalises."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from aejax.checks import check
from aejax.events import flatten, join_context
from aejax.types import Array


class MLP(nn.Module):
    """Applies dense hidden layers and, if `shape` is given, a last linear layer.

    Attributes:
      widths: the number of units of each hidden layer.
      shape: the size of the last linear layer's output for one example, or its shape; None: there
        is no such layer, as in an encoder, and the output is that of the last hidden layer.
      activation: the activation after each hidden layer.
      dtype: the dtype of the computation, such as jnp.bfloat16; parameters and an output of `shape`
        stay float32.
    """

    widths: Sequence[int]
    shape: int | Sequence[int] | None = None
    activation: Callable[[Array], Array] = nn.relu
    dtype: Any = None

    def __post_init__(self) -> None:
        """Raises UserError unless widths is a sequence of positive numbers."""
        check(self, "widths", _are_widths, "the units of each hidden layer, such as (32,)")
        super().__post_init__()

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Maps [B, *event] to [B, widths[-1]], or to f32[B, *shape] if shape is given."""
        hidden = join_context(flatten(values), context)
        for i, width in enumerate(self.widths):
            hidden = self.activation(nn.Dense(width, dtype=self.dtype, name=f"hidden_{i}")(hidden))
        if self.shape is None:
            return hidden
        shape = (self.shape,) if isinstance(self.shape, int) else self.shape
        output = nn.Dense(math.prod(shape), dtype=self.dtype, name="output")(hidden)
        return output.astype(jnp.float32).reshape((-1, *shape))


@dataclasses.dataclass(frozen=True)
class LayerNormed:
    """An activation with a layer normalisation before it (Ba et al. 2016), as for `MLP.activation`.

    Each call within a net adds a `nn.LayerNorm` with parameters of its own to that net.

    Attributes:
      activation: the activation.
    """

    activation: Callable[[Array], Array] = nn.relu

    def __call__(self, hidden: Array) -> Array:
        """Normalises the features of each example, [B, D], and applies the activation."""
        return self.activation(nn.LayerNorm()(hidden))


def _are_widths(widths: Any) -> bool:
    return isinstance(widths, Sequence) and all(width >= 1 for width in widths)
