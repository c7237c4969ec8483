"""Causal nets of sequences: output t depends on inputs 0 to t and on given vectors.

An autoregressive likelihood such as `likelihoods.Text` calls them in two ways, which agree: on a
whole known sequence, and step by step with a cache, to draw one.

    __call__(values f32[B, T, width], given) -> f32[B, T, width]
    begin(size, count, given)                -> the cache for `count` steps of `size` sequences
    step(values f32[B, width], cache, i)     -> f32[B, width], and the cache for step i + 1

`given` is None, or P vectors of C values for each sequence, f32[B, P, C], such as a decoder makes
from a latent; every output depends on them. No output depends on the length T of the sequence, so
that padding at its end changes nothing.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from aejax.attention import Block, causal, waves
from aejax.checks import check_count
from aejax.errors import UserError
from aejax.types import Array


class CausalTransformer(nn.Module):
    """A causal transformer; each block has keys and values of the given vectors.

    The given vectors are also added, by a linear map, to the input of every place, as in Optimus
    (Li et al. 2020, section 3.1).

    Attributes:
      width: the number of features of a place, a multiple of `heads`.
      layers: the number of blocks.
      heads: the number of attention heads of a block.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4

    def __post_init__(self) -> None:
        """Raises UserError if a number is out of range."""
        check_heads(self)
        super().__post_init__()

    def setup(self) -> None:
        """Declares the layers."""
        self.places, self.given = nn.Dense(self.width), nn.Dense(self.width)
        self.blocks = [Block(self.width, self.heads) for _ in range(self.layers)]
        self.norm = nn.LayerNorm()

    def __call__(self, values: Array, given: Array | None = None) -> Array:
        """Maps f32[B, T, width] to the same shape; place t depends on places 0 to t."""
        count = values.shape[1]
        hidden = values + self.where(count)[None] + self._shift(given, len(values))[:, None]
        for block in self.blocks:
            hidden = block(hidden, causal(count), given)
        return self.norm(hidden)

    def begin(self, size: int, count: int, given: Array | None = None) -> Any:
        """Returns the cache for `count` steps of `size` sequences."""
        caches = [block.cache(size, count, given) for block in self.blocks]
        return self.where(count), self._shift(given, size), caches

    def step(self, values: Array, cache: Any, position: Array) -> tuple[Array, Any]:
        """Computes the output at one place from its input and the cache of those before it."""
        where, shift, caches = cache
        hidden = (values + where[position][None] + shift)[:, None]
        kept = []
        for block, own in zip(self.blocks, caches, strict=True):
            hidden, new = block.step(hidden, own, position, len(where))
            kept.append(new)
        return self.norm(hidden)[:, 0], (where, shift, kept)

    def where(self, count: int) -> Array:
        """Returns the features of places 0 to count - 1, f32[count, width]."""
        return self.places(waves(np.arange(count)[:, None]))

    def _shift(self, given: Array | None, size: int) -> Array:
        """Returns what the given vectors add to every input, f32[B, width]."""
        if given is None:
            return jnp.zeros((size, self.width))
        return self.given(given.reshape((size, -1)))


class CausalGRU(nn.Module):
    """A gated recurrent unit; the given vectors set its first state and are added to every input.

    It is smaller and faster than a transformer on short sequences.

    Attributes:
      width: the number of features of a place, and of units of the state.
    """

    width: int = 64

    def __post_init__(self) -> None:
        """Raises UserError if the width is out of range."""
        check_count(self, 1, "width")
        super().__post_init__()

    def setup(self) -> None:
        """Declares the layers."""
        self.start, self.given = nn.Dense(self.width), nn.Dense(self.width)
        self.inputs, self.states = nn.Dense(3 * self.width), nn.Dense(3 * self.width)
        self.norm = nn.LayerNorm()

    def __call__(self, values: Array, given: Array | None = None) -> Array:
        """Maps f32[B, T, width] to the same shape; place t depends on places 0 to t."""
        shift, state = self._begun(given, len(values))
        # The products with the inputs need no state, so they are one product for all places.
        inputs = jnp.moveaxis(self.inputs(values + shift[:, None]), 1, 0)
        kernel, bias = self._weights(state)

        def advance(state: Array, inputs: Array) -> tuple[Array, Array]:
            new = _gated(state, inputs, state @ kernel + bias[None])
            return new, new

        _, states = jax.lax.scan(advance, state, inputs)
        return self.norm(jnp.moveaxis(states, 0, 1))

    def begin(self, size: int, count: int, given: Array | None = None) -> Any:
        """Returns the cache for `count` steps of `size` sequences."""
        return self._begun(given, size)

    def step(self, values: Array, cache: Any, position: Array) -> tuple[Array, Any]:
        """Computes the output at one place from its input and the state before it."""
        shift, state = cache
        state = _gated(state, self.inputs(values + shift), self.states(state))
        return self.norm(state), (shift, state)

    def _begun(self, given: Array | None, size: int) -> tuple[Array, Array]:
        """Returns what is added to every input, and the first state, f32[B, width] each."""
        if given is None:
            return jnp.zeros((size, self.width)), jnp.zeros((size, self.width))
        flat = given.reshape((size, -1))
        return self.given(flat), jnp.tanh(self.start(flat))

    def _weights(self, state: Array) -> tuple[Array, Array]:
        """Returns the kernel and the bias of `states`, for a loop outside of the module."""
        self.states(state[:1])  # the layer has its parameters after its first call
        own = self.states.variables["params"]
        return own["kernel"], own["bias"]


def _gated(state: Array, inputs: Array, recurrent: Array) -> Array:
    """Returns the next state (Cho et al. 2014) from products with the input and the state."""
    reset, update, new = jnp.split(inputs, 3, axis=-1)
    reset_too, update_too, new_too = jnp.split(recurrent, 3, axis=-1)
    update = jax.nn.sigmoid(update + update_too)
    new = jnp.tanh(new + jax.nn.sigmoid(reset + reset_too) * new_too)
    return (1.0 - update) * new + update * state


def check_heads(net: Any) -> None:
    """Raises UserError if width, layers or heads is below 1, or the heads do not divide width."""
    check_count(net, 1, "width", "layers", "heads")
    if net.width % net.heads:
        raise UserError(
            f"{type(net).__name__} has width {net.width} and {net.heads} heads: give a width that "
            "the heads divide"
        )
