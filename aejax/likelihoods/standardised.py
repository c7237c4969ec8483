"""A likelihood of targets in their own units, computed from the standardised targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from aejax.contracts import Likelihood
from aejax.errors import UserError
from aejax.events import spread, sum_events
from aejax.types import Array, Key


class Standardised(Likelihood):
    """Applies a given likelihood to (target - mean) / std, and converts densities to target units.

    The density of the target is that of the standardised target divided by std, so log p(x) is
    exact for the target in its own units; means and samples are in these units too. The inner
    likelihood must be one of real targets.

    Attributes:
      likelihood: the likelihood of the standardised target, such as `LearnedGaussian()`.
      mean_of: the mean of each value, nested tuples in the shape of one target, or one number.
      std_of: the standard deviation of each value, above 0, in the same shape.
    """

    likelihood: Likelihood
    mean_of: Any
    std_of: Any

    def __post_init__(self) -> None:
        """Raises UserError if the inner likelihood is not defined for all real numbers."""
        if self.likelihood.support is not None:
            name = type(self.likelihood).__name__
            raise UserError(
                f"likelihoods.Standardised was given {name}, which is defined for targets in "
                f"{tuple(self.likelihood.support)} only, but standardised targets are any numbers: "
                f"use {name} alone, on targets that are not standardised"
            )
        super().__post_init__()

    def shape(self, event: Sequence[int]) -> tuple[int, ...]:
        """Returns the shape of the inner likelihood's prediction."""
        return self.likelihood.shape(event)

    def log_prob(self, prediction: Any, target: Array, mask: Array | None = None) -> Array:
        """Computes log p(target | prediction), f32[B], in nats, for the target in its own units."""
        mean, std = self._statistics(target)
        # Missing elements are 0 before they are standardised; the mask leaves them out.
        inner = self.likelihood.log_prob(prediction, (target - mean) / std, mask)
        return inner - sum_events(jnp.log(std), mask)

    def mean(self, prediction: Any) -> Array:
        """Computes the expected target, [B, *event]."""
        return self._restored(self.likelihood.mean(prediction))

    def sample(self, key: Key, prediction: Any) -> Array:
        """Draws a target for each example, [B, *event]."""
        return self._restored(self.likelihood.sample(key, prediction))

    def _restored(self, values: Array) -> Array:
        mean, std = self._statistics(values)
        return values * std + mean

    def _statistics(self, values: Array) -> tuple[Array, Array]:
        """Returns the fields mean_of and std_of as arrays in the shape of values [B, *event]."""
        mean, std = jnp.asarray(self.mean_of), jnp.asarray(self.std_of)
        return spread(mean, values), spread(std, values)
