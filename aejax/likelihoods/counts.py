"""Likelihoods of counts: Poisson and negative binomial, also with more zeros than they explain.

    Poisson()                           variance = mean
    NegativeBinomial()                  variance = mean + mean^2 / theta
    ZeroInflated(NegativeBinomial())    the count models of single-cell work (Lopez et al. 2018)

The prediction is the logarithm of the mean. A decoder such as `nets.Shares` multiplies the mean by
the size of each example, which it reads from the context.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.checks import check_positive
from aejax.contracts import Likelihood
from aejax.errors import UserError
from aejax.events import sum_events
from aejax.likelihoods import count_densities
from aejax.normal import bounded
from aejax.types import Array, Key, Support

Shape = tuple[int, ...]
# Logarithms of means and of theta outside these ranges are bounded softly; see `normal.bounded`.
LOG_MEAN_RANGE = (-30.0, 30.0)
LOG_THETA_RANGE = (-20.0, 20.0)


class Counts(Likelihood):
    """Abstract: a distribution of each element, a count, given the logarithm of its mean."""

    support = Support(0.0, math.inf, whole=True)

    @abc.abstractmethod
    def elements(self, log_mean: Array, target: Array) -> Array:
        """Computes the log-probability of each element, f32[B, *event]."""

    @abc.abstractmethod
    def drawn(self, key: Key, log_mean: Array) -> Array:
        """Draws a count for each element, f32[B, *event]."""

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Computes the log-probability of the counts, f32[B], given the logarithms of the means."""
        return sum_events(self.elements(_log_mean(prediction), target), mask)

    def mean(self, prediction: Array) -> Array:
        """Returns the mean, f32[B, *event]."""
        return jnp.exp(_log_mean(prediction))

    def sample(self, key: Key, prediction: Array) -> Array:
        """Draws counts, f32[B, *event]; counts above 2^31 - 1 are cut off."""
        return self.drawn(key, _log_mean(prediction))


class Poisson(Counts):
    """The Poisson likelihood; the prediction is the logarithm of the mean."""

    def elements(self, log_mean: Array, target: Array) -> Array:
        """Computes the log-probability of each element, f32[B, *event]."""
        return count_densities.poisson(target, log_mean)

    def drawn(self, key: Key, log_mean: Array) -> Array:
        """Draws a count for each element, f32[B, *event]."""
        return jax.random.poisson(key, jnp.exp(log_mean)).astype(jnp.float32)


class NegativeBinomial(Counts):
    """The negative binomial likelihood with a learned inverse dispersion theta for each element.

    The variance is mean + mean^2 / theta; the prediction is the logarithm of the mean.

    Attributes:
      start: theta before training.
    """

    start: float = 1.0

    def __post_init__(self) -> None:
        """Raises UserError unless start is a finite number above 0."""
        check_positive(self, "start")
        super().__post_init__()

    def elements(self, log_mean: Array, target: Array) -> Array:
        """Computes the log-probability of each element, f32[B, *event]."""
        log_theta = jnp.broadcast_to(self._log_theta(target.shape[1:])[None], target.shape)
        return count_densities.negative_binomial(target, log_mean, log_theta)

    def drawn(self, key: Key, log_mean: Array) -> Array:
        """Draws a count for each element, from a Poisson whose rate is gamma-distributed."""
        rate_key, count_key = jax.random.split(key)
        log_theta = jnp.broadcast_to(self._log_theta(log_mean.shape[1:])[None], log_mean.shape)
        # The logarithm of a gamma draw does not underflow for a small theta.
        log_rate = log_mean - log_theta + jax.random.loggamma(rate_key, jnp.exp(log_theta))
        return jax.random.poisson(count_key, jnp.exp(log_rate)).astype(jnp.float32)

    @nn.compact
    def _log_theta(self, event: Shape) -> Array:
        """Returns the logarithm of theta of each element, f32[*event]."""
        start = nn.initializers.constant(math.log(self.start))
        return bounded(self.param("log_theta", start, event), *LOG_THETA_RANGE)


class ZeroInflated(Likelihood):
    """A mixture of a likelihood of counts and a count of 0 that has another reason.

    The last axis of the prediction has two entries: the logarithm of the mean of the given
    likelihood, and the logit of the probability of the other reason (Lambert 1992).

    Attributes:
      likelihood: `Poisson()` or `NegativeBinomial()`.
    """

    likelihood: Counts
    support = Counts.support

    def __post_init__(self) -> None:
        """Raises UserError unless the likelihood is one of counts."""
        if not isinstance(self.likelihood, Counts):
            raise UserError(
                f"ZeroInflated was given {type(self.likelihood).__name__}, which is not a "
                "distribution of counts: give it Poisson() or NegativeBinomial()"
            )
        super().__post_init__()

    def shape(self, event: Sequence[int]) -> Shape:
        """Returns the prediction's shape: a log-mean and a logit for each element."""
        return (*event, 2)

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Computes the log-probability, f32[B], of f32[B, *event] given f32[B, *event, 2]."""
        log_mean = _log_mean(prediction[..., 0])
        each = self.likelihood.elements(log_mean, target)
        zero = self.likelihood.elements(log_mean, jnp.zeros_like(target))
        logit = prediction[..., 1]
        return sum_events(count_densities.zero_inflated(target, each, zero, logit), mask)

    def mean(self, prediction: Array) -> Array:
        """Returns the mean, f32[B, *event]."""
        return jax.nn.sigmoid(-prediction[..., 1]) * self.likelihood.mean(prediction[..., 0])

    def sample(self, key: Key, prediction: Array) -> Array:
        """Draws counts, f32[B, *event]."""
        zero_key, count_key = jax.random.split(key)
        kept = jax.random.bernoulli(zero_key, jax.nn.sigmoid(-prediction[..., 1]))
        return jnp.where(kept, self.likelihood.sample(count_key, prediction[..., 0]), 0.0)


def _log_mean(prediction: Array) -> Array:
    return bounded(prediction, *LOG_MEAN_RANGE)
