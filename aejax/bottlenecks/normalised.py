"""A Gaussian bottleneck whose means are normalised over the batch, so that the KL cannot vanish."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from aejax.bottlenecks.gaussian import GaussianCode, drawn
from aejax.checks import check_positive
from aejax.contracts import NOTHING, Given, VectorBottleneck
from aejax.events import flatten
from aejax.types import Array, Key

DECAY = 0.99  # the decay of the running averages per training step
EPSILON = 1e-5


class NormalisedGaussian(VectorBottleneck):
    """A `Gaussian` whose means pass through batch normalisation (BN-VAE, Zhu et al. 2020).

    In every latent the means of a training batch have the mean `shift`, a parameter, and the
    standard deviation `gamma`. The mean KL from a standard normal prior is therefore at least
    latents * gamma^2 / 2 nats. In evaluation the statistics are running averages over the training
    steps.

    Attributes:
      latents: the number of latents.
      gamma: the standard deviation of the means, which is fixed.
    """

    gamma: float = 0.5

    def __post_init__(self) -> None:
        """Raises UserError unless gamma is a positive number."""
        check_positive(self, "gamma")
        super().__post_init__()

    @nn.compact
    def __call__(self, features: Array, key: Key | None, given: Given = NOTHING) -> GaussianCode:
        """Draws the code of features [B, ...]; if key is None, z is the mean."""
        statistics = nn.Dense(2 * self.latents, name="statistics")(
            flatten(features).astype(jnp.float32)
        )
        mean, log_std = jnp.split(statistics, 2, axis=-1)
        shift = self.param("shift", nn.initializers.zeros, (self.latents,))
        mean = shift[None] + self.gamma * self._normalised(mean)
        return drawn(jnp.concatenate([mean, log_std], axis=-1), key)

    def _normalised(self, values: Array) -> Array:
        """Normalises values f32[B, L]: each latent gets the mean 0 and the standard deviation 1."""
        # The averages begin at 0, and are divided by the weight that they have gathered so far.
        centre = self.variable("memory", "centre", jnp.zeros, (self.latents,))
        variance = self.variable("memory", "variance", jnp.zeros, (self.latents,))
        weight = self.variable("memory", "weight", jnp.zeros, ())
        if self.is_mutable_collection("memory") and not self.is_initializing():
            now = jnp.mean(values, axis=0), jnp.var(values, axis=0)
            for kept, new in ((centre, now[0]), (variance, now[1]), (weight, jnp.ones(()))):
                kept.value = DECAY * kept.value + (1.0 - DECAY) * new
        else:
            begun = weight.value > 0
            whole = jnp.where(begun, weight.value, 1.0)
            now = centre.value / whole, jnp.where(begun, variance.value / whole, 1.0)
        return (values - now[0][None]) / jnp.sqrt(now[1] + EPSILON)[None]
