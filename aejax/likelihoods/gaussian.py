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
from aejax.normal import bounded, normal_log_prob
from aejax.types import Array, Key

Shape = tuple[int, ...]
TINY = 1e-6  # the smallest initial value of a learned deviation above its floor


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
      start: the standard deviation before training, which must be above the floor. None: the root
        mean square of the errors of the first predictions, over the batch that initialises the
        learner, so that targets in any unit have a moderate loss at the first step.
    """

    floor: float = 1e-3
    start: float | None = None

    def __post_init__(self) -> None:
        """Raises UserError unless 0 <= floor < start."""
        apart = 1.0 if self.start is None else self.start - self.floor
        if not sensible(self.floor, lambda floor: 0 <= floor < math.inf) or not sensible(
            apart, lambda apart: 0 < apart < math.inf
        ):
            raise UserError(
                f"LearnedGaussian has floor = {self.floor} and start = {self.start}: give a floor "
                "of 0 or more, and a finite start above it"
            )
        super().__post_init__()

    def std(self) -> Array:
        """Returns the current standard deviation, f32[]."""
        return self.floor + jnp.exp(self._raw_std())

    @nn.compact
    def _raw_std(self, error: Array | None = None, mask: Array | None = None) -> Array:
        """Returns the learned parameter log(std - floor), f32[].

        It is initialised from `start`, or, if that is None, from the errors given here.

        Args:
          error: target - prediction, f32[B, *event], of the batch that initialises the model.
          mask: 1 for the elements of the target that count, else 0; None: all count.
        """

        def initial(key: Key) -> Array:
            if self.start is not None:
                return jnp.log(jnp.asarray(self.start - self.floor, jnp.float32))
            if error is None:
                return jnp.zeros(())
            seen = jnp.ones_like(error) if mask is None else jnp.broadcast_to(mask, error.shape)
            squares = jnp.where(seen > 0, jnp.square(error), 0.0)
            mean = jnp.sum(squares) / jnp.maximum(jnp.sum(seen > 0), 1)
            return jnp.log(jnp.maximum(jnp.sqrt(mean) - self.floor, max(self.floor, TINY)))

        return self.param("raw_std", initial)

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Computes the log-density of the target, summed over the event, f32[B]."""
        std = self.floor + jnp.exp(self._raw_std(target - prediction, mask))
        log_std = jnp.broadcast_to(jnp.log(std), prediction.shape)
        return sum_events(normal_log_prob(target, prediction, log_std), mask)

    def mean(self, prediction: Array) -> Array:
        """Returns the mean, which is the prediction, f32[B, *event]."""
        return prediction

    def sample(self, key: Key, prediction: Array) -> Array:
        """Draws a target for each example, f32[B, *event]."""
        return prediction + self.std() * jax.random.normal(key, prediction.shape)


class HeteroscedasticGaussian(Likelihood):
    """A Gaussian with a predicted standard deviation for each element.

    The last axis of the prediction has two entries: the mean, and a number raw that determines the
    standard deviation, floor + exp(raw). The floor keeps the density bounded, as in
    `LearnedGaussian`. Values of raw outside [-10, 10] are softly bounded, so that the exponential
    does not overflow; see `aejax.normal.bounded`.

    Attributes:
      floor: the smallest standard deviation, in the units of the target.
    """

    floor: float = 1e-3

    def __post_init__(self) -> None:
        """Raises UserError unless floor is a finite number, 0 or more."""
        check(self, "floor", lambda floor: 0 <= floor < math.inf, "0 or more")
        super().__post_init__()

    def shape(self, event: Sequence[int]) -> Shape:
        """Returns the prediction's shape, (*event, 2).

        The entries of the last axis are the mean and a number that determines the deviation.
        """
        return (*event, 2)

    def std(self, prediction: Array) -> Array:
        """Returns the standard deviation of each element, f32[B, *event]."""
        return self.floor + jnp.exp(bounded(prediction[..., 1], -10.0, 10.0))

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
