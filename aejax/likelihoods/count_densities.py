"""Log-probabilities of counts, exact in float32 from a rare count to a million.

The textbook forms subtract large logarithms of the gamma function, whose rounding errors exceed the
result when the mean or theta is large. Here, as in Loader 2000 ("Fast and accurate computation of
binomial probabilities"), a log-probability is a sum of small terms: `correction`, which grows like
half a logarithm, and deviances, which are 0 where the count is the mean. No logarithm of the gamma
function is computed.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from aejax.types import Array

SHIFT = 4  # below this argument, Stirling's series is evaluated at the argument plus SHIFT


def poisson(count: Array, log_mean: Array) -> Array:
    """Computes the log-probability of counts under a Poisson distribution; all shapes agree."""
    some = count > 0
    safe = jnp.where(some, count, 1.0)
    mean = jnp.exp(log_mean)
    deviance = safe * bend((mean - safe) / safe, log_mean - jnp.log(safe))
    return -correction(count) - jnp.where(some, deviance, mean)


def negative_binomial(count: Array, log_mean: Array, log_theta: Array) -> Array:
    """Computes the log-probability of counts with variance mean + mean^2 / theta.

    theta is the inverse dispersion; as it grows, the result approaches that of `poisson`. The
    negative binomial's probability is theta / (theta + count) times the binomial's of theta
    successes in theta + count trials with probability theta / (theta + mean), continued to real
    theta; Loader's form is that of the binomial.

    Args:
      count: the counts, f32[...].
      log_mean: the logarithms of the means, of the same shape.
      log_theta: the logarithms of theta, of the same shape.
    """
    mean, theta = jnp.exp(log_mean), jnp.exp(log_theta)
    total, expected = theta + count, theta + mean
    grown = jnp.log(total) - jnp.log(expected)
    successes = theta * bend((count - mean) / expected, grown)
    some = count > 0
    safe = jnp.where(some, count, 1.0)
    apart = theta * (mean - safe) / (safe * expected)
    failures = safe * bend(apart, log_mean + grown - jnp.log(safe))
    deviance = successes + jnp.where(some, failures, mean * theta / expected)
    rest = correction(total) - correction(theta) - correction(count)
    return rest - jnp.log1p(count / theta) - deviance


def zero_inflated(count: Array, log_prob: Array, log_zero: Array, logit: Array) -> Array:
    """Computes the log-probability of counts that are 0 for a further reason.

    With probability sigmoid(logit) a count is 0; otherwise it has the given distribution.

    Args:
      count: the counts, f32[...].
      log_prob: the log-probability of the counts under the given distribution, of the same shape.
      log_zero: the log-probability of 0 under the given distribution, of the same shape.
      logit: the logits of the probability of the further reason, of the same shape.
    """
    kept = jax.nn.log_sigmoid(-logit)
    zero = jnp.logaddexp(jax.nn.log_sigmoid(logit), kept + log_zero)
    return jnp.where(count > 0, kept + log_prob, zero)


def correction(x: Array) -> Array:
    """Computes log Gamma(x + 1) - x log x + x for x >= 0; it is 0 at 0, else 0.5 log(2 pi x) + ...

    It is Stirling's series from SHIFT on. Below, the recursion of the gamma function leads to it.
    """
    low = x < SHIFT
    small, high = jnp.where(low, x, 0.0), jnp.where(low, x + SHIFT, x)
    inverse = 1.0 / high
    square = jnp.square(inverse)
    series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680)))
    whole = 0.5 * jnp.log(2.0 * math.pi * high) + series
    product = (small + 1.0) * (small + 2.0) * (small + 3.0) * (small + 4.0)
    safe = jnp.where(small > 0, small, 1.0)
    below = high * jnp.log(high) - SHIFT - jnp.log(product) - small * jnp.log(safe)
    return whole + jnp.where(low, below, 0.0)


def bend(u: Array, logarithm: Array) -> Array:
    """Computes u - log(1 + u) for u > -1, without cancellation where u is small.

    Args:
      u: f32[...].
      logarithm: log(1 + u), which is used where u is below -1/2 or above 1/2, and which the caller
        can compute more precisely than from u near -1.
    """
    near = jnp.abs(u) < 0.5
    # log(1 + u) = 2 atanh(r), whose first term is subtracted exactly: u - 2 r = u r.
    small = jnp.where(near, u, 0.0)
    r = small / (2.0 + small)
    square = jnp.square(r)
    series = 1 / 11 + square / 13
    for odd in (9, 7, 5, 3):
        series = 1 / odd + square * series
    return jnp.where(near, small * r - 2.0 * r * square * series, u - logarithm)
