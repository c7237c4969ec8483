"""A transformer block, and the positional encoding of positions on a grid.

The prior over codes and the nets of texts use both. Besides the positions, a block may read further
vectors (`given`), such as vectors made from a latent; every position reads all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from aejax.types import Array

WAVES = 8  # the number of frequencies that encode a position along one axis
Cache = tuple[Array, Array]  # keys and values of all places, f32[B, P + N, heads, D] each


def causal(count: int) -> Array:
    """Returns a mask f32[1, N, N], N = count: 1 where a position reads itself or an earlier one."""
    return jnp.tril(jnp.ones((1, count, count)))


class Block(nn.Module):
    """Adds self-attention and then a dense net, each after a norm (Xiong et al. 2020).

    Attributes:
      width: the number of features of a position, a multiple of `heads`.
      heads: the number of attention heads.
    """

    width: int
    heads: int

    def setup(self) -> None:
        """Declares the layers; `given` has no parameters if the block is never given vectors."""
        self.norms = [nn.LayerNorm(), nn.LayerNorm()]
        self.query, self.key, self.value, self.output = (nn.Dense(self.width) for _ in range(4))
        self.up, self.down = nn.Dense(4 * self.width), nn.Dense(self.width)
        self.given = nn.Dense(2 * self.width)

    def __call__(self, values: Array, seen: Array, given: Array | None = None) -> Array:
        """Maps f32[B, N, width] to the same shape.

        Args:
          values: the features of N positions.
          seen: f32[B or 1, N or 1, N], 1 where a position (second axis) reads a position (third).
          given: further vectors that every position reads, f32[B, P, C]; None: there are none.
        """
        query, key, value = self._heads(values)
        if given is not None:
            keys, whole = self._given(given)
            key, value = jnp.concatenate([keys, key], 1), jnp.concatenate([whole, value], 1)
            seen = jnp.pad(seen, ((0, 0), (0, 0), (keys.shape[1], 0)), constant_values=1.0)
        return self._rest(values, _attend(query, key, value, seen))

    def cache(self, size: int, count: int, given: Array | None = None) -> Cache:
        """Returns the cache before the first of `count` positions, for `size` examples."""
        empty = jnp.zeros((size, count, self.heads, self.width // self.heads))
        if given is None:
            return empty, empty
        keys, whole = self._given(given)
        return jnp.concatenate([keys, empty], axis=1), jnp.concatenate([whole, empty], axis=1)

    def step(self, values: Array, cache: Cache, position: Array, count: int) -> tuple[Array, Cache]:
        """Computes the block's output at one position, given the cache of those before it.

        Args:
          values: the input at this position, f32[B, 1, width].
          cache: the keys and values of the given vectors and of the earlier positions.
          position: the index of this position, i32[].
          count: N, the number of positions of the cache.

        Returns:
          The output, f32[B, 1, width], and the cache with this position's key and value.
        """
        query, key, value = self._heads(values)
        place = position + cache[0].shape[1] - count
        keys, whole = (
            jax.lax.dynamic_update_slice_in_dim(old, new, place, axis=1)
            for old, new in zip(cache, (key, value), strict=True)
        )
        seen = (jnp.arange(keys.shape[1]) <= place)[None, None].astype(jnp.float32)
        return self._rest(values, _attend(query, keys, whole, seen)), (keys, whole)

    def _given(self, given: Array) -> tuple[Array, Array]:
        """Returns the keys and the values of the given vectors, f32[B, P, heads, D] each."""
        shape = (*given.shape[:2], 2, self.heads, self.width // self.heads)
        both = self.given(given).reshape(shape)
        return both[:, :, 0], both[:, :, 1]

    def _heads(self, values: Array) -> tuple[Array, Array, Array]:
        normed = self.norms[0](values)
        shape = (*values.shape[:2], self.heads, self.width // self.heads)
        query, key, value = (f(normed) for f in (self.query, self.key, self.value))
        return query.reshape(shape), key.reshape(shape), value.reshape(shape)

    def _rest(self, values: Array, attended: Array) -> Array:
        values = values + self.output(attended.reshape(values.shape))
        return values + self.down(nn.gelu(self.up(self.norms[1](values))))


def _attend(query: Array, key: Array, value: Array, seen: Array) -> Array:
    """Computes attention f32[B, M, heads, D]; query i reads key j where seen[:, i, j] > 0."""
    weights = jnp.einsum("bmhd,bnhd->bhmn", query, key) * np.float32(query.shape[-1] ** -0.5)
    # This is finite, so that an example without anything to read gives no NaN.
    weights = jnp.where(seen[:, None] > 0, weights, jnp.finfo(weights.dtype).min)
    return jnp.einsum("bhmn,bnhd->bmhd", jax.nn.softmax(weights), value)


def waves(places: Sequence[Sequence[int]] | np.ndarray) -> Array:
    """Returns the features of positions on a grid, f32[N, axes * 2 WAVES].

    The features are sines and cosines of a position's indices, i[N, axes], and do not depend on the
    number of positions.
    """
    places = np.asarray(places)
    rates = np.pi * np.exp2(-np.arange(WAVES))
    angles = (places[..., None] * rates).reshape((len(places), -1))
    return jnp.asarray(np.concatenate([np.sin(angles), np.cos(angles)], axis=1), jnp.float32)
