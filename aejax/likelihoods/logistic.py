"""Likelihoods of values on a grid, such as 8-bit pixels: discretised logistics and mixtures.

A real logistic variable is rounded to the nearest of `levels` values 0, 1/(levels - 1), ..., 1. The
probabilities of the first and the last value include the tails, so that all probabilities sum to
one. Internally the values are rescaled to [-1, 1], as in the papers.

    upper, lower = (the midpoints between a value and its neighbours - mean) / scale
    P(value)     = sigmoid(upper) - sigmoid(lower)
                 = sigmoid(upper) sigmoid(-lower) (1 - exp(lower - upper))

The product is accurate even if both sigmoids round to 1, where the difference would be 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from aejax.checks import check_count
from aejax.contracts import Likelihood
from aejax.events import sum_events
from aejax.types import Array, Key

Shape = tuple[int, ...]

# The largest |log-scale|. A scale of e^-7 is a ninth of the distance between 256 levels (Salimans
# et al. 2017), and a logistic with the scale e^7 is flat over the range.
LIMIT = 7.0


def bits_per_dimension(nats: Any, event: Sequence[int]) -> Any:
    """Converts -log p(x) from nats per example to bits per dimension, nats / (D log 2).

    Args:
      nats: -log p(x) of a discrete likelihood, a number or an array of any shape.
      event: the shape of one example, which has D elements.

    Returns:
      A number or an array of the same shape.
    """
    return nats / (math.prod(event) * math.log(2.0))


def level(target: Array, levels: int) -> Array:
    """Returns the index of the grid value nearest to each target in [0, 1], as a float."""
    return jnp.round(jnp.clip(target, 0.0, 1.0) * (levels - 1))


def value(number: Array, levels: int) -> Array:
    """Returns the value in [0, 1] of the grid's level with the given index."""
    return number / (levels - 1)


def scale_of(raw: Array) -> Array:
    """Returns the logistic's scale, exp(raw), in units where values range over [-1, 1].

    Its logarithm raw, which the net outputs, is clipped first.
    """
    return jnp.exp(jnp.clip(raw, -LIMIT, LIMIT))


def level_log_prob(number: Array, mean: Array, raw: Array, levels: int) -> Array:
    """Computes the log-probability of each element's level, its index in the grid of values.

    All arrays have the same shape.

    Args:
      number: the index of each level, as a float.
      mean: the mean of the logistic, in units where values range over [-1, 1].
      raw: the log-scale of the logistic, before it is clipped.
      levels: the number of values.
    """
    half = 1.0 / (levels - 1)
    scale = scale_of(raw)
    centred = 2.0 * half * number - 1.0 - mean
    upper, lower = (centred + half) / scale, (centred - half) / scale
    first, last = jax.nn.log_sigmoid(upper), jax.nn.log_sigmoid(-lower)
    inner = first + last + jnp.log(-jnp.expm1(-2.0 * half / scale))
    return jnp.where(number <= 0, first, jnp.where(number >= levels - 1, last, inner))


def level_mean(mean: Array, raw: Array, levels: int) -> Array:
    """Computes each element's expected value in [0, 1]: sum_i P(level >= i) / (levels - 1).

    The arguments are those of `level_log_prob`.
    """
    steps = np.arange(1, levels, dtype=np.float32)
    edges = ((2.0 * steps - 1.0) / (levels - 1) - 1.0).reshape((1,) * mean.ndim + (-1,))
    above = nn.sigmoid((mean[..., None] - edges) / scale_of(raw)[..., None])
    return jnp.sum(above, axis=-1) / (levels - 1)


def level_sample(key: Key, mean: Array, raw: Array, levels: int) -> Array:
    """Draws a value of the grid in [0, 1] for each element.

    The arguments are those of `level_log_prob`.
    """
    drawn = mean + scale_of(raw) * jax.random.logistic(key, mean.shape)
    return value(level(0.5 * (drawn + 1.0), levels), levels)


class DiscretisedLogistic(Likelihood):
    """A logistic, rounded to a grid in [0, 1], for each element (Kingma et al. 2016, section 5.1).

    The last axis of the prediction has two entries, the mean and the logarithm of the scale, both
    in units where values range over [-1, 1].

    Attributes:
      levels: the number of values from 0 to 1; a target is rounded to the nearest.
    """

    levels: int = 256
    support = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Raises UserError if levels is not a whole number, 2 or more."""
        check_count(self, 2, "levels")
        super().__post_init__()

    def shape(self, event: Sequence[int]) -> Shape:
        """Returns the prediction's shape: a mean and a log-scale for each element."""
        return (*event, 2)

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Computes the log-probability, f32[B], of f32[B, *event] given f32[B, *event, 2]."""
        number = level(target, self.levels)
        log_prob = level_log_prob(number, prediction[..., 0], prediction[..., 1], self.levels)
        return sum_events(log_prob, mask)

    def mean(self, prediction: Array) -> Array:
        """Computes the expected value, including the tails, f32[B, *event]."""
        return level_mean(prediction[..., 0], prediction[..., 1], self.levels)

    def sample(self, key: Key, prediction: Array) -> Array:
        """Draws one of the `levels` values from 0 to 1 for each element, f32[B, *event]."""
        return level_sample(key, prediction[..., 0], prediction[..., 1], self.levels)


class LogisticMixture(Likelihood):
    """A mixture of logistics, rounded to a grid in [0, 1], for each element of the target.

    See Salimans et al. 2017, equation 2. Each element has its own mixture, and all elements are
    independent, even the channels of a pixel; `ColourLogisticMixture` couples channels. The last
    axis of the prediction holds the components' logits, means and log-scales, in that order.

    Attributes:
      components: the number of components of each mixture.
      levels: the number of values from 0 to 1; a target is rounded to the nearest.
    """

    components: int = 10
    levels: int = 256
    support = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Raises UserError if components or levels is out of range."""
        check_count(self, 1, "components")
        check_count(self, 2, "levels")
        super().__post_init__()

    def shape(self, event: Sequence[int]) -> Shape:
        """Returns the prediction's shape: three parameters for each component of each element."""
        return (*event, 3 * self.components)

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Computes the log-probability, f32[B], of f32[B, *event] given f32[B, *event, 3 C]."""
        logits, mean, raw = jnp.split(prediction, 3, axis=-1)
        number = jnp.broadcast_to(level(target, self.levels)[..., None], mean.shape)
        each = jax.nn.log_softmax(logits) + level_log_prob(number, mean, raw, self.levels)
        return sum_events(jax.nn.logsumexp(each, axis=-1), mask)

    def mean(self, prediction: Array) -> Array:
        """Computes the expected value, including the tails, f32[B, *event]."""
        logits, mean, raw = jnp.split(prediction, 3, axis=-1)
        return jnp.sum(jax.nn.softmax(logits) * level_mean(mean, raw, self.levels), axis=-1)

    def sample(self, key: Key, prediction: Array) -> Array:
        """Draws one of the `levels` values from 0 to 1 for each element, f32[B, *event]."""
        choice_key, value_key = jax.random.split(key)
        logits, mean, raw = jnp.split(prediction, 3, axis=-1)
        chosen = jax.random.categorical(choice_key, logits)[..., None]
        mean, raw = (jnp.take_along_axis(a, chosen, axis=-1)[..., 0] for a in (mean, raw))
        return level_sample(value_key, mean, raw, self.levels)
