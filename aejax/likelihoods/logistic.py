"""Likelihoods of values on a grid, such as 8-bit pixels: discretised logistics, and mixtures.

A logistic variable on the line is rounded to the nearest of `levels` values 0, 1/(levels - 1), ...,
1; the first and the last value take its tails, so that the probabilities sum to one. Inside, the
values are stretched to [-1, 1], as the papers do.

    upper, lower = the middle between a value and its neighbours, in scales from the mean
    P(value)     = sigmoid(upper) - sigmoid(lower)
                 = sigmoid(upper) sigmoid(-lower) (1 - exp(lower - upper))

The product needs no approximation where both sigmoids round to 1.
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

# Of the raw log-scale: e^-7 is a ninth of a step of 256 levels (Salimans et al. 2017), e^7 is flat.
LIMIT = 7.0


def bits_per_dimension(nats: Any, event: Sequence[int]) -> Any:
    """-log p(x) in nats an example -> bits per dimension, nats / (D log 2).

    Args:
      nats: a number, or an array of any shape, of a discrete likelihood.
      event: shape of one example; D is its number of elements.

    Returns:
      A number or an array of the same shape.
    """
    return nats / (math.prod(event) * math.log(2.0))


def level(target: Array, levels: int) -> Array:
    """The number of the nearest of the `levels` values in [0, 1], as a float of any shape."""
    return jnp.round(jnp.clip(target, 0.0, 1.0) * (levels - 1))


def value(number: Array, levels: int) -> Array:
    """The number of a level -> its value in [0, 1]."""
    return number / (levels - 1)


def scale_of(raw: Array) -> Array:
    """A logistic's scale, in units of half the range, from the decoder's number."""
    return jnp.exp(jnp.clip(raw, -LIMIT, LIMIT))


def level_log_prob(number: Array, mean: Array, raw: Array, levels: int) -> Array:
    """log P of levels by their numbers, per element; all arrays of one shape, mean in [-1, 1]."""
    half = 1.0 / (levels - 1)
    scale = scale_of(raw)
    centred = 2.0 * half * number - 1.0 - mean
    upper, lower = (centred + half) / scale, (centred - half) / scale
    first, last = jax.nn.log_sigmoid(upper), jax.nn.log_sigmoid(-lower)
    inner = first + last + jnp.log(-jnp.expm1(-2.0 * half / scale))
    return jnp.where(number <= 0, first, jnp.where(number >= levels - 1, last, inner))


def level_mean(mean: Array, raw: Array, levels: int) -> Array:
    """The expected value in [0, 1], per element: sum_i P(level >= i) / (levels - 1)."""
    steps = np.arange(1, levels, dtype=np.float32)
    edges = ((2.0 * steps - 1.0) / (levels - 1) - 1.0).reshape((1,) * mean.ndim + (-1,))
    above = nn.sigmoid((mean[..., None] - edges) / scale_of(raw)[..., None])
    return jnp.sum(above, axis=-1) / (levels - 1)


def level_sample(key: Key, mean: Array, raw: Array, levels: int) -> Array:
    """Values in [0, 1] drawn, per element."""
    drawn = mean + scale_of(raw) * jax.random.logistic(key, mean.shape)
    return value(level(0.5 * (drawn + 1.0), levels), levels)


class DiscretisedLogistic(Likelihood):
    """Values of a grid in [0, 1], each a rounded logistic (Kingma et al. 2016, section 5.1).

    The last axis of the prediction holds the mean, in [-1, 1], and the logarithm of the scale.

    Attributes:
      levels: values from 0 to 1; a target between two counts as the nearer.
    """

    levels: int = 256
    support = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Raises UserError for numbers that there cannot be."""
        check_count(self, 2, "levels")
        super().__post_init__()

    def shape(self, event: Sequence[int]) -> Shape:
        """A mean and a log-scale for each element."""
        return (*event, 2)

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Log-probability, summed: f32[B, *event, 2], f32[B, *event] -> f32[B]."""
        number = level(target, self.levels)
        log_prob = level_log_prob(number, prediction[..., 0], prediction[..., 1], self.levels)
        return sum_events(log_prob, mask)

    def mean(self, prediction: Array) -> Array:
        """The expected value, tails included, f32[B, *event]."""
        return level_mean(prediction[..., 0], prediction[..., 1], self.levels)

    def sample(self, key: Key, prediction: Array) -> Array:
        """Values of the grid, f32[B, *event]."""
        return level_sample(key, prediction[..., 0], prediction[..., 1], self.levels)


class LogisticMixture(Likelihood):
    """Values of a grid in [0, 1], each a mixture of rounded logistics.

    Salimans et al. 2017, equation 2. Every element has a mixture of its own, given which elements
    are independent, channels too: `ColourLogisticMixture` couples those. The last axis of the
    prediction holds the logits, the means and the log-scales of the components, in that order.

    Attributes:
      components: of each mixture.
      levels: values from 0 to 1; a target between two counts as the nearer.
    """

    components: int = 10
    levels: int = 256
    support = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Raises UserError for numbers that there cannot be."""
        check_count(self, 1, "components")
        check_count(self, 2, "levels")
        super().__post_init__()

    def shape(self, event: Sequence[int]) -> Shape:
        """Three numbers for each component of each element."""
        return (*event, 3 * self.components)

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Log-probability, summed: f32[B, *event, 3 C], f32[B, *event] -> f32[B]."""
        logits, mean, raw = jnp.split(prediction, 3, axis=-1)
        number = jnp.broadcast_to(level(target, self.levels)[..., None], mean.shape)
        each = jax.nn.log_softmax(logits) + level_log_prob(number, mean, raw, self.levels)
        return sum_events(jax.nn.logsumexp(each, axis=-1), mask)

    def mean(self, prediction: Array) -> Array:
        """The expected value, tails included, f32[B, *event]."""
        logits, mean, raw = jnp.split(prediction, 3, axis=-1)
        return jnp.sum(jax.nn.softmax(logits) * level_mean(mean, raw, self.levels), axis=-1)

    def sample(self, key: Key, prediction: Array) -> Array:
        """Values of the grid, f32[B, *event]."""
        choice_key, value_key = jax.random.split(key)
        logits, mean, raw = jnp.split(prediction, 3, axis=-1)
        chosen = jax.random.categorical(choice_key, logits)[..., None]
        mean, raw = (jnp.take_along_axis(a, chosen, axis=-1)[..., 0] for a in (mean, raw))
        return level_sample(value_key, mean, raw, self.levels)
