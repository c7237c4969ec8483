"""The bottleneck of the variational autoencoder: a diagonal Gaussian, reparameterised."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.events import flatten
from aejax.normal import normal_log_prob
from aejax.types import Array, Key


class GaussianCode(NamedTuple):
    """A draw from q(z | x) = N(mean, exp(log_std)^2) with its parameters."""

    z: Array  # f32[B, L]
    mean: Array  # f32[B, L]
    log_std: Array  # f32[B, L]

    @property
    def latent(self) -> Array:
        """f32[B, L]."""
        return self.z

    def log_q(self, stick: bool = False) -> Array:
        """log q(z | x), f32[B].

        Args:
          stick: stops the gradient through mean and log_std but not through z, "sticking the
            landing" (Roeder et al. 2017, equation 8).
        """
        mean, log_std = self.mean, self.log_std
        if stick:
            mean, log_std = jax.lax.stop_gradient((mean, log_std))
        return jnp.sum(normal_log_prob(self.z, mean, log_std), axis=-1)


class Gaussian(nn.Module):
    """z = mean + exp(log_std) * noise, noise ~ N(0, 1) (Kingma and Welling 2014, section 2.4)."""

    latents: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example's latent."""
        return (self.latents,)

    @nn.compact
    def __call__(
        self,
        features: Array,
        key: Key | None,
        step: Any = 0,
        context: Any = None,
        prior: Any = None,
        decoder: Any = None,
    ) -> GaussianCode:
        """[B, ...] -> GaussianCode; without a key z is the mean."""
        del step, context, prior, decoder
        statistics = nn.Dense(2 * self.latents, name="statistics")(
            flatten(features).astype(jnp.float32)
        )
        mean, log_std = jnp.split(statistics, 2, axis=-1)
        if key is None:
            return GaussianCode(mean, mean, log_std)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        return GaussianCode(mean + jnp.exp(log_std) * noise, mean, log_std)

    def lift(self, latent: Array, context: Any = None, prior: Any = None) -> Array:
        """f32[B, L] -> f32[B, L]: the decoder sees the latent as it is."""
        del context, prior
        return latent
