"""The likelihood of binary targets, and the cross-entropy of grey ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.contracts import Likelihood
from aejax.events import flatten, sum_events
from aejax.types import Array, Key

Shape = tuple[int, ...]

# Factors of 1 to 2 that share a logarithm; float32 holds the product of 127 of them.
FACTORS = 16


@jax.custom_jvp
def _softplus(x: Array) -> Array:
    """log(1 + exp(x)), twice as fast as jax.nn.softplus and as exact."""
    return jnp.maximum(x, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@_softplus.defjvp
def _softplus_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # Of the form above the derivative at 0 would be that of max and abs, not 1/2.
    (x,), (dx,) = primals, tangents
    return _softplus(x), nn.sigmoid(x) * dx


@jax.custom_jvp
def _softplus_sum(x: Array) -> Array:
    """sum log(1 + exp(x)) over the last axis, f32[B, D] -> f32[B].

    The sum of 16 logarithms is the logarithm of a product. On CPUs that halves the time of an
    evaluation's likelihood, and is as exact.
    """
    size, count = x.shape
    factors = 1.0 + jnp.exp(-jnp.abs(x))
    factors = jnp.pad(factors, ((0, 0), (0, -count % FACTORS)), constant_values=1.0)
    # Neighbours lie in different products: over the first axis the loop runs along vectors.
    products = jnp.prod(factors.reshape((size, FACTORS, -1)), axis=1)
    return jnp.sum(jnp.maximum(x, 0.0), axis=-1) + jnp.sum(jnp.log(products), axis=-1)


@_softplus_sum.defjvp
def _softplus_sum_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    return _softplus_sum(x), jnp.sum(nn.sigmoid(x) * dx, axis=-1)


class Bernoulli(Likelihood):
    """Binary targets; the prediction holds logits.

    For grey targets in [0, 1] the same sum is the binary cross-entropy and no likelihood: name its
    figures `bce`, never `nll` or `elbo`.
    """

    support = (0.0, 1.0)
    binary = True

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """x log p + (1 - x) log(1 - p), summed: f32[B, *event] -> f32[B]."""
        if mask is not None:
            mask = flatten(jnp.broadcast_to(mask, target.shape))
        # Over an image's axes XLA's CPU loops are five times slower; the barrier keeps it from
        # undoing the reshape.
        pair = jax.lax.optimization_barrier((flatten(prediction), flatten(target)))
        logits, target = pair
        if mask is None:
            return jnp.sum(target * logits, axis=-1) - _softplus_sum(logits)
        return sum_events(target * logits - _softplus(logits), mask)

    def mean(self, prediction: Array) -> Array:
        """The probabilities, f32[B, *event]."""
        return nn.sigmoid(prediction)

    def sample(self, key: Key, prediction: Array) -> Array:
        """Zeros and ones, f32[B, *event]."""
        return jax.random.bernoulli(key, nn.sigmoid(prediction)).astype(jnp.float32)
