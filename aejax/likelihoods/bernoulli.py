"""The likelihood of binary targets, and the cross-entropy of targets in [0, 1]."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.contracts import Likelihood
from aejax.events import flatten, sum_events
from aejax.types import Array, Key

Shape = tuple[int, ...]

# The number of factors whose product is taken before one logarithm. Each factor is between 1 and 2,
# so a product of up to 127 of them does not overflow float32.
FACTORS = 16


@jax.custom_jvp
def _softplus(x: Array) -> Array:
    """Computes log(1 + exp(x)), twice as fast as jax.nn.softplus and as exact."""
    return jnp.maximum(x, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@_softplus.defjvp
def _softplus_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # Differentiating the form above would give the derivatives of max and abs at 0, and not 1/2.
    (x,), (dx,) = primals, tangents
    return _softplus(x), nn.sigmoid(x) * dx


@jax.custom_jvp
def _softplus_sum(x: Array) -> Array:
    """Sums log(1 + exp(x)) over the last axis of f32[B, D] to f32[B].

    It computes the logarithm of a product of 16 factors instead of 16 logarithms, which is as exact
    and, on CPUs, halves the time that an evaluation spends on the likelihood.
    """
    size, count = x.shape
    factors = 1.0 + jnp.exp(-jnp.abs(x))
    factors = jnp.pad(factors, ((0, 0), (0, -count % FACTORS)), constant_values=1.0)
    # Neighbouring elements go into different products, so that the product vectorises.
    products = jnp.prod(factors.reshape((size, FACTORS, -1)), axis=1)
    return jnp.sum(jnp.maximum(x, 0.0), axis=-1) + jnp.sum(jnp.log(products), axis=-1)


@_softplus_sum.defjvp
def _softplus_sum_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    return _softplus_sum(x), jnp.sum(nn.sigmoid(x) * dx, axis=-1)


class Bernoulli(Likelihood):
    """The Bernoulli likelihood of binary targets; the prediction holds logits.

    For grey targets in (0, 1), -log_prob is a binary cross-entropy, not a negative log-likelihood:
    report it as `bce`, never as `nll` or `elbo`.
    """

    support = (0.0, 1.0)
    binary = True

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Computes x log p + (1 - x) log(1 - p) from logits of p, summed over the event, f32[B]."""
        if mask is not None:
            mask = flatten(jnp.broadcast_to(mask, target.shape))
        # XLA's CPU loops over the axes of an image are five times slower than over a flat axis; the
        # barrier keeps XLA from undoing the reshape.
        pair = jax.lax.optimization_barrier((flatten(prediction), flatten(target)))
        logits, target = pair
        if mask is None:
            return jnp.sum(target * logits, axis=-1) - _softplus_sum(logits)
        return sum_events(target * logits - _softplus(logits), mask)

    def mean(self, prediction: Array) -> Array:
        """Returns the probabilities of 1, f32[B, *event]."""
        return nn.sigmoid(prediction)

    def sample(self, key: Key, prediction: Array) -> Array:
        """Draws zeros and ones, f32[B, *event]."""
        return jax.random.bernoulli(key, nn.sigmoid(prediction)).astype(jnp.float32)
