"""What the normalising-flow posteriors share: the base Gaussian, and the steps applied to its draw.

    base  ~ N(location, exp(log_scale)^2)          a linear layer computes both from the features
    z     = step_T(... step_1(base))               each step is invertible, given the features
    log q = log N(base) - sum of the steps' log |det dz / dbase|  (Rezende and Mohamed 2015, eq. 7)

A step is a Linen module that is called with (z, features) and returns the transformed z',
f32[B, L], and log |det dz' / dz|, f32[B].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.errors import UserError
from aejax.events import flatten
from aejax.normal import mean_and_log_std, normal_log_prob
from aejax.types import Array, Key


class FlowCode(NamedTuple):
    """A draw z from q(z | x), with the values from which log q(z | x) of this z is computed.

    The density of another z cannot be computed, because the steps have no inverse here.
    """

    z: Array  # f32[B, L]
    base: Array  # f32[B, L], the draw from the base Gaussian, the input of the first step
    location: Array  # f32[B, L], the mean of the base Gaussian
    log_scale: Array  # f32[B, L], the log standard deviation of the base Gaussian
    log_det: Array  # f32[B], log |det dz / dbase|

    @property
    def latent(self) -> Array:
        """Returns z, the value whose density the prior evaluates, f32[B, L]."""
        return self.z

    def log_q(self, stick: bool = False) -> Array:
        """Computes log q(z | x), f32[B].

        Raises:
          UserError: if stick is True. "Sticking the landing" (Roeder et al. 2017) differentiates
            log q with respect to z only, for which the steps would have to be inverted.
        """
        if stick:
            raise UserError(
                "the gradient that sticks the landing (stick=True) needs the inverse of a flow's "
                "steps, which is not implemented: use "
                " losses.rate() without stick, or the bottleneck Gaussian or FullGaussian"
            )
        base = normal_log_prob(self.base, self.location, self.log_scale)
        return jnp.sum(base, axis=-1) - self.log_det


class Base(nn.Module):
    """The diagonal Gaussian that a flow starts from; a linear layer computes its parameters."""

    latents: int

    @nn.compact
    def __call__(self, features: Array, key: Key | None) -> FlowCode:
        """Draws z from the base Gaussian, before any step; if key is None, z is the mean."""
        statistics = nn.Dense(2 * self.latents, name="statistics")(features)
        location, log_scale = mean_and_log_std(statistics)
        base = location
        if key is not None:
            base = base + jnp.exp(log_scale) * jax.random.normal(key, base.shape)
        return FlowCode(base, base, location, log_scale, jnp.zeros(base.shape[0]))


def flow(base: Base, steps: Sequence[Any], features: Array, key: Key | None) -> FlowCode:
    """Draws from the base Gaussian, applies the steps, and returns the code of the result.

    Args:
      base: the base Gaussian.
      steps: modules that map (z, features) to (z', log |det dz' / dz|), applied in this order.
      features: the encoder's output, [B, ...].
      key: the random key of the draw; None: the steps transform the mean of the base Gaussian.
    """
    features = flatten(features).astype(jnp.float32)
    code = base(features, key)
    for step in steps:
        z, log_det = step(code.z, features)
        code = code._replace(z=z, log_det=code.log_det + log_det)
    return code
