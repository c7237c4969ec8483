"""The posterior of the Hamiltonian VAE: a Gaussian draw moved along the gradient of log p(x, z)."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.bottlenecks.gaussian import drawn
from aejax.checks import check, check_count, check_positive
from aejax.contracts import NOTHING, Given, VectorBottleneck
from aejax.errors import UserError
from aejax.events import flatten
from aejax.normal import normal_log_prob
from aejax.types import Array, Key


class HamiltonianCode(NamedTuple):
    """The end of a path, and the log-ratio of the densities of its two ends."""

    z: Array  # f32[B, L]
    log_ratio: Array  # f32[B], log q(start, momentum at the start) - log p(momentum at the end)

    @property
    def latent(self) -> Array:
        """Returns z, the value whose density the prior evaluates, f32[B, L]."""
        return self.z

    def log_q(self, stick: bool = False) -> Array:
        """Returns the log-ratio, f32[B], which takes the place of log q(z | x) in every bound.

        exp(log p(x, z) - log_ratio) has the expectation p(x), as it would for log q(z | x); but it
        is no density of z, because the momenta are part of it.

        Raises:
          UserError: if stick is True.
        """
        if stick:
            raise UserError(
                "the log-ratio of a Hamiltonian path cannot stick the landing, because it is no "
                "density of z: use losses.rate() without stick"
            )
        return self.log_ratio


class Hamiltonian(VectorBottleneck):
    """Moves a draw of a diagonal Gaussian by leapfrog steps (Caterini et al. 2018; HVAE).

    Each step needs the gradient of log p(x, z) by z: one more pass forward and back through the
    decoder, also when the model is evaluated. The step sizes and the first temperature are learned;
    the momenta cool down quadratically, as in section 3.2 of the paper. Use elbo(rate=rate()).

    Attributes:
      steps: the number of leapfrog steps.
      size: the size of a step before training, in each dimension.
      cooling: the factor from 0 to 1 that the momenta are multiplied by over the path, before
        training.
    """

    steps: int = 3
    size: float = 0.05
    cooling: float = 0.7

    def __post_init__(self) -> None:
        """Raises UserError if a number is out of range."""
        check_count(self, 1, "latents", "steps")
        check_positive(self, "size")
        check(self, "cooling", lambda value: 0 < value < 1, "a number between 0 and 1")
        super().__post_init__()

    @nn.compact
    def __call__(self, features: Array, key: Key | None, given: Given = NOTHING) -> HamiltonianCode:
        """Draws the code of features [B, ...]; if key is None, it starts at the mean, at rest.

        Raises:
          UserError: if the model has no prior or no likelihood.
        """
        flat = flatten(features).astype(jnp.float32)
        start_key, momentum_key = (None, None) if key is None else jax.random.split(key)
        start = drawn(nn.Dense(2 * self.latents, name="statistics")(flat), start_key)
        size = jnp.exp(self.param("log_size", _constant(math.log(self.size)), (self.latents,)))
        odds = self.param("cooling", _constant(math.log(self.cooling / (1 - self.cooling))), ())
        # The momenta start with the deviation 1 / cooling; log|det| of the cooling cancels this.
        cooling = nn.sigmoid(odds)
        shape = start.z.shape
        noise = jnp.zeros(shape) if momentum_key is None else jax.random.normal(momentum_key, shape)
        z, momentum = start.z, noise / cooling
        if not self.is_initializing():
            if given.log_joint is None:
                raise UserError(
                    "Hamiltonian moves z along the gradient of log p(x, z), which only a model "
                    "with a prior and a likelihood has: give Autoencoder both"
                )
            slope = jax.grad(lambda z: jnp.sum(given.log_joint(z)))
            for i in range(1, self.steps + 1):
                half = momentum + 0.5 * size[None] * slope(z)
                z = z + size[None] * half
                momentum = half + 0.5 * size[None] * slope(z)
                momentum = momentum * self._cooled(i, cooling) / self._cooled(i - 1, cooling)
        zeros = jnp.zeros(shape)
        ends = normal_log_prob(noise, zeros, zeros) - normal_log_prob(momentum, zeros, zeros)
        return HamiltonianCode(z, start.log_q() + jnp.sum(ends, axis=-1))

    def _cooled(self, step: int, cooling: Array) -> Array:
        """Returns the factor reached after a step: 1 at the start and `cooling` at the end."""
        return 1.0 - (step / self.steps) ** 2 * (1.0 - cooling)


def _constant(value: float) -> nn.initializers.Initializer:
    return nn.initializers.constant(value)
