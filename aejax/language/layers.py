"""The layers of a transformer's block: norm, attention with rotary positions, gated MLP.

Letters in shapes: B texts, P tokens of each in this pass, S slots that hold keys (those P tokens,
or all slots of a cache), D the width of the residual stream, H query heads, K key and value heads,
h the size of a head.

Every token has a position in its text, counted from 0; padding has position -1. A token attends to
all tokens whose position is neither -1 nor greater than its own. This one rule covers causal
attention, padding on either side, and slots of a cache that are still empty.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.language.config import Config
from aejax.language.taps import Tap
from aejax.types import Array

PADDING = -1  # the position of padding
FEW = 32  # `product` computes W x^T instead of x W^T if x has at most this many rows


class Scene(NamedTuple):
    """The arrays that all blocks of one forward pass share."""

    position: Array  # i32[B, P], the position of each token in its text
    slots: Array  # i32[B, S], the position of the token in each slot
    rope: Array  # the cosines and sines of the rotary angles, as `tables` returns them
    used: Array | None  # i32[], index of the cache slot of this pass' first token; None: no cache


class Norm(nn.Module):
    """RMSNorm, x / rms(x) * weight, computed in float32 (Zhang and Sennrich 2019)."""

    epsilon: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Normalises the last axis: f[..., n] -> f[..., n]."""
        weight = self.param("weight", nn.initializers.ones_init(), (x.shape[-1],), jnp.float32)
        wide = x.astype(jnp.float32)
        scale = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.epsilon)
        return (wide * scale * _trailing(weight, x)).astype(x.dtype)


class Dense(nn.Module):
    """A linear layer: x W^T, plus a bias if `bias` is set."""

    features: int
    dtype: Any
    bias: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps f[..., n] to f[..., features]."""
        shape, start = (self.features, x.shape[-1]), nn.initializers.lecun_normal(-1, -2)
        y = product(x, self.param("kernel", start, shape, self.dtype))
        if not self.bias:
            return y
        bias = self.param("bias", nn.initializers.zeros_init(), shape[:1], self.dtype)
        return y + _trailing(bias, y)


def product(x: Array, kernel: Array, dtype: Any = None) -> Array:
    """Computes x W^T, f[..., m].

    In generation x has only one row for each text. XLA on CPUs repacks the right factor of every
    product, which takes longer than the product itself if x has few rows; W x^T is then faster.

    Args:
      x: the rows, f[..., n].
      kernel: the weights W, f[m, n], in the layout of model files.
      dtype: the dtype of the result and of the sums; None means that of x.
    """
    how: Any = {"preferred_element_type": dtype}
    rows = math.prod(x.shape[:-1])
    if rows > FEW:
        return jnp.einsum("...n,mn->...m", x, kernel, **how)
    y = jnp.einsum("mn,rn->mr", kernel, x.reshape(rows, -1), **how)
    # Without the barrier XLA would exchange the factors again and drop the transposition.
    return jax.lax.optimization_barrier(y).T.reshape(*x.shape[:-1], -1)


def _trailing(vector: Array, like: Array) -> Array:
    """Reshapes a vector [n] to [1, ..., 1, n], with as many axes as `like` has."""
    return vector.reshape((1,) * (like.ndim - 1) + (-1,))


class Attention(nn.Module):
    """Grouped-query attention with rotary positions (Ainslie et al. 2023; Su et al. 2021)."""

    config: Config
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Array, local: Any, kept: Any, scene: Scene, tap: Tap
    ) -> tuple[Array, Any]:
        """Computes the attention of one block.

        Args:
          x: the normalised residual stream, f[B, P, D].
          local: 1 for a local layer, 0 for a global one.
          kept: this block's (keys, values) in the cache, or None.
          scene: the arrays that all blocks share.
          tap: the function that reads and edits the values at this block's hooks.

        Returns:
          The output f[B, P, D], and `kept` with this pass' keys and values written to it.
        """
        c, (B, P, _), G = self.config, x.shape, self.config.heads // self.config.kv_heads

        # One product gives, for each head of keys, its G queries, its key and its value.
        width = (c.heads + 2 * c.kv_heads) * c.head_size
        rows = Dense(width, self.dtype, c.query_bias, name="qkv")(x)
        rows = rows.reshape(B, P, c.kv_heads, G + 2, c.head_size)
        q, k, v = jnp.split(rows, (G, G + 1), axis=3)
        if c.query_norm:
            q, k = Norm(c.epsilon, name="query_norm")(q), Norm(c.epsilon, name="key_norm")(k)
        rope = scene.rope[local]
        q, k = rotated(q, rope), rotated(k, rope)
        # The products run over the K * B pairs of a key head and a text: [K * B, rows, h].
        q, k, v = (
            x.transpose(2, 0, 3, 1, 4).reshape(c.kv_heads * B, -1, c.head_size) for x in (q, k, v)
        )
        order = "nsh"
        if kept is not None:
            assert scene.used is not None
            used = scene.used
            # A product with few queries is fastest if the slots are the last axis of the keys.
            order, k = "nhs", k.swapaxes(1, 2)
            k = jax.lax.dynamic_update_slice(kept[0], k.astype(kept[0].dtype), (0, 0, used))
            v = jax.lax.dynamic_update_slice(kept[1], v.astype(kept[1].dtype), (0, used, 0))
            # Without the barrier XLA fuses this write with each of its readers and, for each of
            # them, copies the whole cache in every pass.
            k, v = kept = jax.lax.optimization_barrier((k, v))
        scale = c.head_size**-0.5 if c.query_scale is None else c.query_scale
        how: Any = {"preferred_element_type": jnp.float32}
        scores = jnp.einsum(f"nqh,{order}->nqs", q, k, **how) * scale
        scores = scores.reshape(c.kv_heads, B, G, P, -1).swapaxes(0, 1).reshape(B, c.heads, P, -1)
        seen = visible(scene, local, c.window)[:, None]
        pattern = jax.nn.softmax(jnp.where(seen, scores, jnp.finfo(jnp.float32).min))
        pattern = tap("attn_pattern", pattern).astype(self.dtype)
        pattern = pattern.reshape(B, c.kv_heads, G * P, -1).swapaxes(0, 1)
        mixed = pattern.reshape(c.kv_heads * B, G * P, -1) @ v
        mixed = mixed.reshape(c.kv_heads, B, G, P, -1).transpose(1, 3, 0, 2, 4).reshape(B, P, -1)
        return Dense(c.size, self.dtype, name="out")(mixed), kept


class MLP(nn.Module):
    """A gated linear unit: SwiGLU or GeGLU (Shazeer 2020)."""

    config: Config
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps f[B, P, D] to f[B, P, D]."""
        c = self.config
        activation = nn.silu if c.activation == "silu" else nn.gelu
        gate, up = jnp.split(Dense(2 * c.hidden, self.dtype, name="gate_up")(x), 2, axis=-1)
        return Dense(c.size, self.dtype, name="down")(activation(gate) * up)


def tables(config: Config, position: Array) -> Array:
    """Computes the cosines and sines of the rotary angles, f32[1 or 2, 2, B, P, 1, 1, h / 2].

    Entry 0 of the first axis is for global layers. Entry 1 is for local layers; only models with
    local layers have it.
    """
    exponents = jnp.arange(0, config.head_size, 2, dtype=jnp.float32) / config.head_size
    factors = jnp.asarray(config.rope_factors or (1.0,) * exponents.size, jnp.float32)
    frequencies = [1.0 / (config.rope_base**exponents * factors)]
    if any(config.local):
        frequencies.append(1.0 / config.local_rope_base**exponents)
    angles = position[None, ..., None] * jnp.stack(frequencies)[:, None, None]
    angles = angles[:, :, :, None, None]
    # The barrier keeps XLA from recomputing the angles wherever they are used.
    return jax.lax.optimization_barrier(jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1))


def rotated(x: Array, rope: Array) -> Array:
    """Applies the rotary embedding: rotates the pair of elements i and i + h / 2 of every head.

    Args:
      x: the queries or keys, f[B, P, K, heads, h].
      rope: the cosines and sines of the angles, f32[2, B, P, 1, 1, h / 2].
    """
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = rope
    turned = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def visible(scene: Scene, local: Any, window: int) -> Array:
    """Returns whether each token attends to the key in each slot, bool[B, P, S].

    Args:
      scene: the arrays that all blocks of the pass share, such as the slots' positions.
      local: 1 for a local layer, whose attention reaches back `window` positions; 0 for a global
        layer.
      window: that number of positions.
    """
    query, key = scene.position[:, :, None], scene.slots[:, None, :]
    seen = (key != PADDING) & (key <= query)
    if window == 0:
        return seen
    return seen & ((query - key < window) | (jnp.asarray(local) == 0))
