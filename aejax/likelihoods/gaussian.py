"""Likelihoods of real targets: Gaussians with a fixed, learned or predicted deviation."""

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
    """A Gaussian with one fixed standard deviation; the prediction is the mean.

    Attributes:
      std: the standard deviation, in the units of the target.
    """

    std: float = 1.0

    def __post_init__(self) -> None:
        """Raises UserError unless std is a finite number above 0."""
        check_positive(self, "std")
        super().__post_init__()

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Computes the log-density of the target, summed over the event, f32[B]."""
        log_std = jnp.full_like(prediction, jnp.log(self.std))
        return sum_events(normal_log_prob(target, prediction, log_std), mask)

    def mean(self, prediction: Array) -> Array:
        """Returns the mean, which is the prediction, f32[B, *event]."""
        return prediction

    def sample(self, key: Key, prediction: Array) -> Array:
        """Draws a target for each example, f32[B, *event]."""
        return prediction + self.std * jax.random.normal(key, prediction.shape)


class LearnedGaussian(Likelihood):
    """A Gaussian with one learned standard deviation; the prediction is the mean.

    The density would grow without bound as the standard deviation goes to 0, so the standard
    deviation has a lower bound: std = floor + exp(raw), with a learned parameter raw.

    Attributes:
      floor: the smallest standard deviation, in the units of the target.
      start: the standard deviation before training, which must be above the floor.
    """

    floor: float = 1e-3
    start: float = 1.0

    def __post_init__(self) -> None:
        """Raises UserError unless 0 <= floor < start."""
        apart = self.start - self.floor
        if not sensible(self.floor, lambda floor: floor >= 0) or not sensible(
            apart, lambda apart: 0 < apart < math.inf
        ):
            raise UserError(
                f"LearnedGaussian has floor = {self.floor} and start = {self.start}: give a floor "
                "of 0 or more, and a finite start above it"
            )
        super().__post_init__()

    def setup(self) -> None:
        """Declares the one parameter, the logarithm of std - floor."""
        constant = nn.initializers.constant(jnp.log(self.start - self.floor))
        self.raw_std = self.param("raw_std", constant, ())

    def std(self) -> Array:
        """Returns the current standard deviation, f32[]."""
        return self.floor + jnp.exp(self.raw_std)

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Computes the log-density of the target, summed over the event, f32[B]."""
        log_std = jnp.broadcast_to(jnp.log(self.std()), prediction.shape)
        return sum_events(normal_log_prob(target, prediction, log_std), mask)

    def mean(self, prediction: Array) -> Array:
        """Returns the mean, which is the prediction, f32[B, *event]."""
        return prediction

    def sample(self, key: Key, prediction: Array) -> Array:
        """Draws a target for each example, f32[B, *event]."""
        return prediction + self.std() * jax.random.normal(key, prediction.shape)


class HeteroscedasticGaussian(Likelihood):
    """A Gaussian with a predicted standard deviation for each element.

    The last axis of the prediction has two entries, the mean and raw, with std = floor + exp(raw).
    The floor keeps the density bounded, as in `LearnedGaussian`.

    Attributes:
      floor: the smallest standard deviation, in the units of the target.
    """

    floor: float = 1e-3

    def __post_init__(self) -> None:
        """Raises UserError unless floor is a finite number, 0 or more."""
        check(self, "floor", lambda floor: 0 <= floor < math.inf, "0 or more")
        super().__post_init__()

    def shape(self, event: Sequence[int]) -> Shape:
        """Returns the prediction's shape: a mean and a raw deviation for each element."""
        return (*event, 2)

    def std(self, prediction: Array) -> Array:
        """Returns the standard deviation of each element, f32[B, *event]."""
        return self.floor + jnp.exp(prediction[..., 1])

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Computes the log-density, f32[B], of f32[B, *event] given f32[B, *event, 2]."""
        log_std = jnp.log(self.std(prediction))
        return sum_events(normal_log_prob(target, prediction[..., 0], log_std), mask)

    def mean(self, prediction: Array) -> Array:
        """Returns the mean, f32[B, *event]."""
        return prediction[..., 0]

    def sample(self, key: Key, prediction: Array) -> Array:
        """Draws a target for each example, f32[B, *event]."""
        mean = prediction[..., 0]
        return mean + self.std(prediction) * jax.random.normal(key, mean.shape)
