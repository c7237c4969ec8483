"""Recurrent nets for sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from aejax.events import flatten, join_context
from aejax.types import Array


class GRU(nn.Module):
    """Encodes a sequence as the last state of a gated recurrent unit (Cho et al. 2014).

    Attributes:
      width: the number of units of the state.
      dtype: the dtype of the computation; parameters stay float32.
    """

    width: int = 64
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Maps [B, T, ...] to the last state, [B, width], with the context appended."""
        steps = values.reshape((*values.shape[:2], -1)).astype(jnp.float32)
        states: Any = nn.RNN(nn.GRUCell(self.width, dtype=self.dtype), name="steps")(steps)
        return join_context(states[:, -1], context)


class GRUDecoder(nn.Module):
    """Decodes z to a sequence by a gated recurrent unit.

    The input of step t is z and the position of t in the sequence, a number from -1 to 1.

    Attributes:
      shape: (T, ...), the shape of one output.
      width: the number of units of the state.
      dtype: the dtype of the computation; parameters and output stay float32.
    """

    shape: Sequence[int]
    width: int = 64
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Maps [B, ...] to f32[B, *shape]."""
        seen = join_context(flatten(values), context)
        length = self.shape[0]
        place = jnp.broadcast_to(jnp.linspace(-1, 1, length)[None, :, None], (len(seen), length, 1))
        repeated = jnp.broadcast_to(seen[:, None], (len(seen), length, seen.shape[-1]))
        inputs = jnp.concatenate([repeated, place.astype(seen.dtype)], axis=-1)
        states = nn.RNN(nn.GRUCell(self.width, dtype=self.dtype), name="steps")(inputs)
        output = nn.Dense(math.prod(self.shape[1:]), dtype=self.dtype, name="output")(states)
        return output.astype(jnp.float32).reshape((-1, *self.shape))
