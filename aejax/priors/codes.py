"""A learned prior over the indices of VQ or FSQ codes: a small causal transformer.

    ae.Autoencoder(encoder, ae.VectorQuantised(64, 8, (7, 7)), decoder, ae.priors.Codes(64), ...)
    ae.merge(ae.elbo(rate=ae.losses.rate()), {"commitment": (0.25, ae.losses.commitment)})

A quantised code is a point, so log q(z | x) = 0 and the rate is -log p(indices). The indices carry
no gradient, so the rate trains only the prior, while other terms train the autoencoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from aejax.attention import Block, Cache, causal, waves
from aejax.checks import check_count, check_rows
from aejax.contracts import Prior
from aejax.errors import UserError
from aejax.events import join_context
from aejax.types import Array, Key


class CodeTransformer(nn.Module):
    """Computes logits of each code given the codes before it, in raster order.

    Attributes:
      codes: the number of codes.
      width: the number of features of a position.
      layers: the number of blocks.
      heads: the number of attention heads.
    """

    codes: int
    width: int
    layers: int
    heads: int

    def setup(self) -> None:
        """Declares the layers; index `codes` embeds the start, the input before the first code."""
        self.embed = nn.Embed(self.codes + 1, self.width)
        self.places, self.given = nn.Dense(self.width), nn.Dense(self.width)
        self.blocks = [Block(self.width, self.heads) for _ in range(self.layers)]
        self.norm, self.output = nn.LayerNorm(), nn.Dense(self.codes)

    def __call__(self, indices: Array, context: Any) -> Array:
        """Maps indices i32[B, *positions] to logits f32[B, N, codes] of the code at each place."""
        flat = indices.reshape((indices.shape[0], -1))
        start = jnp.full_like(flat[:, :1], self.codes)
        before = jnp.concatenate([start, flat[:, :-1]], axis=1)
        hidden = self._embedded(before, self.where(indices.shape[1:]), context)
        for block in self.blocks:
            hidden = block(hidden, causal(hidden.shape[1]))
        return self.output(self.norm(hidden))

    def step(
        self, code: Array, place: Array, context: Any, caches: Sequence[Cache], position: Array
    ) -> tuple[Array, list[Cache]]:
        """Computes the logits of the code at one position, given the codes before it.

        Args:
          code: the code at the position before, i32[B], or the start.
          place: the features of the position, one row of `where`.
          context: the context, or None.
          caches: the cache of each block.
          position: the index of the position, i32[].

        Returns:
          The logits, f32[B, codes], and the caches for the next position.
        """
        hidden, kept = self._embedded(code[:, None], place[None], context), []
        for block, cache in zip(self.blocks, caches, strict=True):
            hidden, new = block.step(hidden, cache, position, cache[0].shape[1])
            kept.append(new)
        return self.output(self.norm(hidden))[:, 0], kept

    def where(self, positions: Sequence[int]) -> Array:
        """Returns the features of each position of a grid, f32[N, axes * 2 WAVES]."""
        grid = np.stack(np.meshgrid(*map(np.arange, positions), indexing="ij"), axis=-1)
        return waves(grid.reshape((-1, len(positions))))

    def _embedded(self, before: Array, places: Array, context: Any) -> Array:
        size = before.shape[0]
        given = self.given(join_context(jnp.ones((size, 1)), context))
        return self.embed(before) + self.places(places)[None] + given[:, None]


class Codes(Prior):
    """An autoregressive prior over integer codes on a grid of any shape.

    Van den Oord et al. 2017, section 3.2, train such a prior after the autoencoder; here both are
    trained in the same run. If there is a context, the prior is p(codes | context).

    Attributes:
      codes: the number of codes of the bottleneck.
      width: the number of features of a position, a multiple of `heads`.
      layers: the number of blocks of the transformer.
      heads: the number of attention heads of a block.
    """

    codes: int
    width: int = 64
    layers: int = 2
    heads: int = 4
    of_codes = True

    def __post_init__(self) -> None:
        """Raises UserError if a number is out of range."""
        check_count(self, 1, "codes", "width", "layers", "heads")
        if self.width % self.heads:
            raise UserError(
                f"Codes has width {self.width} and {self.heads} heads: give a width that the heads "
                "divide"
            )
        super().__post_init__()

    def setup(self) -> None:
        """Declares the transformer."""
        self.net = CodeTransformer(self.codes, self.width, self.layers, self.heads)

    def log_prob(self, z: Array, context: Any = None, posterior: Any = None) -> Array:
        """Computes log p(z | context), f32[B], in nats, for indices z i32[B, *positions].

        Raises:
          UserError: if z is not an array of integers.
        """
        if not jnp.issubdtype(z.dtype, jnp.integer):
            raise UserError(
                f"the prior Codes gives a probability to integer codes, not to {z.dtype}: use it "
                "with VectorQuantised, FiniteScalarQuantised or GumbelSoftmax"
            )
        logits = jax.nn.log_softmax(self.net(z, context))
        flat = z.reshape((z.shape[0], -1, 1))
        return jnp.sum(jnp.take_along_axis(logits, flat, axis=-1), axis=(1, 2))

    def sample(
        self, key: Key, n: int, shape: Sequence[int], context: Any = None, posterior: Any = None
    ) -> Array:
        """Draws n grids of codes, i32[n, *shape], one code after the other.

        If there is a context, it has n rows, one for each grid.

        Raises:
          UserError: if there is a context and its number of rows is not n.
        """
        check_rows(self, n, context, "codes")
        net, variables = self.net.unbind()
        # Without this, reverse mode would save every iteration even if nothing is differentiated.
        variables = jax.lax.stop_gradient(variables)
        count = math.prod(shape)
        places = net.apply(variables, tuple(shape), method="where")
        empty = jnp.zeros((n, count, self.heads, self.width // self.heads))

        def draw(carried: Any, i: Array) -> tuple[Any, Array]:
            code, caches = carried
            logits, caches = net.apply(
                variables, code, places[i], context, caches, i, method="step"
            )
            code = jax.random.categorical(jax.random.fold_in(key, i), logits).astype(jnp.int32)
            return (code, caches), code

        start = (jnp.full((n,), self.codes, jnp.int32), [(empty, empty)] * self.layers)
        _, drawn = jax.lax.scan(draw, start, jnp.arange(count))
        return drawn.T.reshape((n, *shape))
