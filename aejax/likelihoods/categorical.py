"""The likelihood of targets that are one of several classes."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from aejax.checks import check_count
from aejax.contracts import Likelihood
from aejax.events import sum_events
from aejax.types import Array, Key

Shape = tuple[int, ...]


class Categorical(Likelihood):
    """Integer targets from 0 to classes - 1; the prediction's last axis holds their logits.

    Attributes:
      classes: how many there are.
    """

    classes: int

    def __post_init__(self) -> None:
        """Raises UserError for numbers that there cannot be."""
        check_count(self, 1, "classes")
        super().__post_init__()

    @property
    def support(self) -> tuple[float, float]:
        """The numbers of the first class and of the last."""
        return (0.0, self.classes - 1.0)

    def shape(self, event: Sequence[int]) -> Shape:
        """A logit for each class of each element."""
        return (*event, self.classes)

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Log-probability, summed: f32[B, *event, classes], i32[B, *event] -> f32[B].

        Raises:
          TypeError: if the target holds no integers.
        """
        if not jnp.issubdtype(target.dtype, jnp.integer):
            raise TypeError(
                f"Categorical reads the target as class numbers, but it is of {target.dtype}: give "
                "integers from 0, or take DiscretisedLogistic for values in [0, 1]"
            )
        chosen = jnp.take_along_axis(jax.nn.log_softmax(prediction), target[..., None], axis=-1)
        return sum_events(chosen[..., 0], mask)

    def mean(self, prediction: Array) -> Array:
        """The expected class number, f32[B, *event]; it has a meaning where classes are ordered."""
        probabilities = jax.nn.softmax(prediction)
        return probabilities @ jnp.arange(self.classes, dtype=probabilities.dtype)

    def sample(self, key: Key, prediction: Array) -> Array:
        """Class numbers, i32[B, *event]."""
        return jax.random.categorical(key, prediction).astype(jnp.int32)
