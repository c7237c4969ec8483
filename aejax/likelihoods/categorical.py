"""The likelihood of integer targets that are one of several classes."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from aejax.checks import check_count
from aejax.contracts import Likelihood
from aejax.errors import UserError
from aejax.events import sum_events
from aejax.types import Array, Key

Shape = tuple[int, ...]


class Categorical(Likelihood):
    """The likelihood of integer targets from 0 to classes - 1.

    The prediction's last axis holds the logits of the classes.

    Attributes:
      classes: the number of classes.
    """

    classes: int

    def __post_init__(self) -> None:
        """Raises UserError if classes is not a whole number, 1 or more."""
        check_count(self, 1, "classes")
        super().__post_init__()

    @property
    def support(self) -> tuple[float, float]:
        """Returns the smallest and the largest target: the first and the last class index."""
        return (0.0, self.classes - 1.0)

    def shape(self, event: Sequence[int]) -> Shape:
        """Returns the prediction's shape: a logit for each class of each element."""
        return (*event, self.classes)

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Computes the log-probability, f32[B], of i32[B, *event] given f32[B, *event, classes].

        Raises:
          UserError: if the target does not hold integers.
        """
        if not jnp.issubdtype(target.dtype, jnp.integer):
            raise UserError(
                f"Categorical reads the target as class indices, but its dtype is {target.dtype}: "
                "give integers from 0, or use DiscretisedLogistic for values in [0, 1]"
            )
        chosen = jnp.take_along_axis(jax.nn.log_softmax(prediction), target[..., None], axis=-1)
        return sum_events(chosen[..., 0], mask)

    def mean(self, prediction: Array) -> Array:
        """Computes the expected class index, f32[B, *event], which suits only ordered classes."""
        probabilities = jax.nn.softmax(prediction)
        return probabilities @ jnp.arange(self.classes, dtype=probabilities.dtype)

    def sample(self, key: Key, prediction: Array) -> Array:
        """Draws class indices, i32[B, *event]."""
        return jax.random.categorical(key, prediction).astype(jnp.int32)
