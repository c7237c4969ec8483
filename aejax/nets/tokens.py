"""Encoders of texts, i32[B, T] token ids in which 0 is padding; padding changes no output."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from aejax.attention import Block, waves
from aejax.checks import check_count
from aejax.errors import UserError
from aejax.events import join_context
from aejax.nets.causal import CausalGRU, check_heads
from aejax.types import Array


class TokenTransformer(nn.Module):
    """A bidirectional transformer of the tokens, which attention pools to one vector.

    Attributes:
      vocabulary: the number of token ids, such as the `size` of a coding.
      width: the number of features of a token, a multiple of `heads`.
      layers: the number of blocks.
      heads: the number of attention heads of a block.
    """

    vocabulary: int
    width: int = 64
    layers: int = 2
    heads: int = 4

    def __post_init__(self) -> None:
        """Raises UserError if a number is out of range."""
        check_count(self, 2, "vocabulary")
        check_heads(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Maps tokens i32[B, T] to f32[B, width], with the context appended."""
        tokens = checked_tokens(self, values)
        real = (tokens > 0).astype(jnp.float32)
        hidden = nn.Embed(self.vocabulary, self.width, name="embed")(tokens)
        places = waves(np.arange(tokens.shape[1])[:, None])
        hidden = hidden + nn.Dense(self.width, name="places")(places)[None]
        for i in range(self.layers):
            hidden = Block(self.width, self.heads, name=f"blocks_{i}")(hidden, real[:, None])
        hidden = nn.LayerNorm(name="norm")(hidden)
        return join_context(_pooled(self, hidden, real), context)


class TokenGRU(nn.Module):
    """Two gated recurrent units, one of which reads backwards, which attention pools to a vector.

    Attributes:
      vocabulary: the number of token ids, such as the `size` of a coding.
      width: the number of features of a token, and of units of each state.
    """

    vocabulary: int
    width: int = 64

    def __post_init__(self) -> None:
        """Raises UserError if a number is out of range."""
        check_count(self, 2, "vocabulary")
        check_count(self, 1, "width")
        super().__post_init__()

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Maps tokens i32[B, T] to f32[B, 2 width], with the context appended."""
        tokens = checked_tokens(self, values)
        real = (tokens > 0).astype(jnp.float32)
        embedded = nn.Embed(self.vocabulary, self.width, name="embed")(tokens)
        ahead = CausalGRU(self.width, name="ahead")(embedded)
        # The text is reversed in its own length, so that its padding stays at the end.
        length = jnp.sum(real, axis=1, dtype=jnp.int32)[:, None]
        place = jnp.arange(tokens.shape[1])[None]
        turned = jnp.where(place < length, length - 1 - place, place)[..., None]
        back = CausalGRU(self.width, name="back")(jnp.take_along_axis(embedded, turned, axis=1))
        back = jnp.take_along_axis(back, turned, axis=1)
        hidden = jnp.concatenate([ahead, back], axis=-1)
        return join_context(_pooled(self, hidden, real), context)


def _pooled(module: nn.Module, hidden: Array, real: Array) -> Array:
    """Averages f32[B, T, W] over the real tokens, with weights that attention learns, f32[B, W]."""
    score = nn.Dense(1, name="attention")(hidden)[..., 0]
    weight = jax.nn.softmax(jnp.where(real > 0, score, jnp.finfo(score.dtype).min), axis=1)
    return jnp.sum(weight[..., None] * hidden, axis=1)


def checked_tokens(module: Any, values: Array) -> Array:
    """Returns tokens i32[B, T].

    Raises:
      UserError: if the values are not integers [B, T].
    """
    if values.ndim != 2 or not jnp.issubdtype(values.dtype, jnp.integer):
        raise UserError(
            f"{type(module).__name__} reads token ids, integers [B, T], but was given "
            f"{values.dtype} of shape {values.shape}: encode texts by ae.data.tokens, and new ones "
            "by ae.data.rows(texts, like=train)"
        )
    return values
