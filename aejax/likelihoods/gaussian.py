"""Likelihoods of real targets: Gaussians with fixed, learned or predicted standard deviation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.checks import check, check_positive, sensible
from aejax.contracts import Likelihood
from aejax.errors import UserError
from aejax.events import sum_events
from aejax.normal import normal_log_prob
from aejax.types import Array, Key

Shape = tuple[int, ...]


class Gaussian(Likelihood):
    """Real targets with one fixed standard deviation; the prediction is the mean.

    Attributes:
      std: in the units of the target.
    """

    std: float = 1.0

    def __post_init__(self) -> None:
        """Raises UserError for numbers that there cannot be."""
        check_positive(self, "std")
        super().__post_init__()

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Log-density, summed: f32[B, *event] -> f32[B]."""
        log_std = jnp.full_like(prediction, jnp.log(self.std))
        return sum_events(normal_log_prob(target, prediction, log_std), mask)

    def mean(self, prediction: Array) -> Array:
        """f32[B, *event]."""
        return prediction

    def sample(self, key: Key, prediction: Array) -> Array:
        """f32[B, *event]."""
        return prediction + self.std * jax.random.normal(key, prediction.shape)


class LearnedGaussian(Likelihood):
    """Real targets with one learned standard deviation; the prediction is the mean.

    The density of a Gaussian is not bounded above as its standard deviation goes to 0, so this one
    is bounded below: std = floor + exp(raw).

    Attributes:
      floor: the smallest standard deviation, in the units of the target.
      start: the standard deviation before training; above the floor.
    """

    floor: float = 1e-3
    start: float = 1.0

    def __post_init__(self) -> None:
        """Raises UserError for numbers that there cannot be."""
        apart = self.start - self.floor
        if not sensible(self.floor, lambda floor: floor >= 0) or not sensible(
            apart, lambda apart: 0 < apart < math.inf
        ):
            raise UserError(
                f"floor of LearnedGaussian is {self.floor} and start {self.start}: give a floor of "
                "0 or more, and a start above it"
            )
        super().__post_init__()

    def setup(self) -> None:
        """Declares the one parameter, the logarithm of what std has above its floor."""
        constant = nn.initializers.constant(jnp.log(self.start - self.floor))
        self.raw_std = self.param("raw_std", constant, ())

    def std(self) -> Array:
        """The standard deviation now, f32[]."""
        return self.floor + jnp.exp(self.raw_std)

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Log-density, summed: f32[B, *event] -> f32[B]."""
        log_std = jnp.broadcast_to(jnp.log(self.std()), prediction.shape)
        return sum_events(normal_log_prob(target, prediction, log_std), mask)

    def mean(self, prediction: Array) -> Array:
        """f32[B, *event]."""
        return prediction

    def sample(self, key: Key, prediction: Array) -> Array:
        """f32[B, *event]."""
        return prediction + self.std() * jax.random.normal(key, prediction.shape)


class HeteroscedasticGaussian(Likelihood):
    """Real targets with a predicted standard deviation for each element.

    The last axis of the prediction holds the mean and the logarithm of what std has above its
    floor: std = floor + exp(raw), bounded below as that of `LearnedGaussian` is.

    Attributes:
      floor: the smallest standard deviation, in the units of the target.
    """

    floor: float = 1e-3

    def __post_init__(self) -> None:
        """Raises UserError for numbers that there cannot be."""
        check(self, "floor", lambda floor: 0 <= floor < math.inf, "0 or more")
        super().__post_init__()

    def shape(self, event: Sequence[int]) -> Shape:
        """A mean and a raw deviation for each element."""
        return (*event, 2)

    def std(self, prediction: Array) -> Array:
        """The standard deviation of each element, f32[B, *event]."""
        return self.floor + jnp.exp(prediction[..., 1])

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Log-density, summed: f32[B, *event, 2], f32[B, *event] -> f32[B]."""
        log_std = jnp.log(self.std(prediction))
        return sum_events(normal_log_prob(target, prediction[..., 0], log_std), mask)

    def mean(self, prediction: Array) -> Array:
        """f32[B, *event]."""
        return prediction[..., 0]

    def sample(self, key: Key, prediction: Array) -> Array:
        """f32[B, *event]."""
        mean = prediction[..., 0]
        return mean + self.std(prediction) * jax.random.normal(key, mean.shape)
