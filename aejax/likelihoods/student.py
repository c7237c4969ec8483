"""Student's t: a likelihood of real targets some of which are far from what is predicted."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.checks import check, check_positive
from aejax.contracts import Likelihood
from aejax.events import sum_events
from aejax.types import Array, Key

LARGE = 1e9  # the ratio from which log(1 + ratio^2) equals 2 log(ratio) in float32


class StudentT(Likelihood):
    """Student's t with a fixed number of degrees of freedom and one learned scale.

    The prediction is the mean. The scale is floor + exp(raw) with a learned parameter raw, since
    the density of an exact prediction would otherwise grow without bound.

    Attributes:
      freedom: the degrees of freedom, above 1 so that there is a mean; the larger, the closer to a
        Gaussian.
      floor: the smallest scale, in the units of the target.
      start: the value of exp(raw) before training, so that the first scale is floor + start.
    """

    freedom: float = 4.0
    floor: float = 1e-3
    start: float = 1.0

    def __post_init__(self) -> None:
        """Raises UserError if a number is out of range."""
        check(self, "freedom", lambda value: 1 < value < math.inf, "a number above 1")
        check(self, "floor", lambda floor: 0 <= floor < math.inf, "0 or more")
        check_positive(self, "start")
        super().__post_init__()

    @nn.compact
    def scale(self) -> Array:
        """Returns the current scale, f32[]."""
        start = nn.initializers.constant(math.log(self.start))
        return self.floor + jnp.exp(self.param("raw_scale", start, ()))

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Computes the log-density of the target, summed over the event, f32[B]."""
        scale, half = self.scale(), jnp.float32(0.5 * self.freedom)
        ratio = jnp.abs(target - prediction) / (scale * math.sqrt(self.freedom))
        # The square of a large ratio would overflow, and 1 + square is then the square.
        near = jnp.log1p(jnp.square(jnp.minimum(ratio, LARGE)))
        far = 2.0 * jnp.log(jnp.maximum(ratio, LARGE))
        constant = jax.scipy.special.betaln(jnp.float32(0.5), half) + 0.5 * jnp.log(2.0 * half)
        spread = (half + 0.5) * jnp.where(ratio < LARGE, near, far)
        return sum_events(-spread - constant - jnp.log(scale), mask)

    def mean(self, prediction: Array) -> Array:
        """Returns the mean, which is the prediction, f32[B, *event]."""
        return prediction

    def sample(self, key: Key, prediction: Array) -> Array:
        """Draws a target for each example, f32[B, *event]."""
        return prediction + self.scale() * jax.random.t(key, self.freedom, prediction.shape)
