"""The bottleneck of the variational autoencoder: a reparameterised diagonal Gaussian."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.contracts import NOTHING, Given, VectorBottleneck
from aejax.events import flatten
from aejax.normal import LOG_2PI, mean_and_log_std, normal_log_prob
from aejax.types import Array, Key


class GaussianCode(NamedTuple):
    """A draw from q(z | x) = N(mean, exp(log_std)^2) with its parameters."""

    z: Array  # f32[B, L]
    mean: Array  # f32[B, L]
    log_std: Array  # f32[B, L]

    @property
    def latent(self) -> Array:
        """Returns z, the value whose density the prior evaluates, f32[B, L]."""
        return self.z

    def log_q(self, stick: bool = False) -> Array:
        """Computes log q(z | x), f32[B].

        Args:
          stick: whether to stop the gradient through mean and log_std but not through z, known as
            "sticking the landing" (Roeder et al. 2017, equation 8).
        """
        mean, log_std = self.mean, self.log_std
        if stick:
            mean, log_std = jax.lax.stop_gradient((mean, log_std))
        return jnp.sum(normal_log_prob(self.z, mean, log_std), axis=-1)

    def log_prob(self, values: Array) -> Array:
        """Computes log q(values_n | x_b) of all pairs, f32[N, B], for values f32[N, L]."""
        # This computes one exponential per example instead of one per pair, which for a thousand
        # draws would take longer than the decoder.
        scaled = (values[:, None] - self.mean[None]) * jnp.exp(-self.log_std)[None]
        constant = -jnp.sum(self.log_std + 0.5 * LOG_2PI, axis=-1)
        return -0.5 * jnp.sum(jnp.square(scaled), axis=-1) + constant[None]

    def redraw(self, key: Key) -> Array:
        """Draws another z from q(z | x) for each example, f32[B, L]."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(self.log_std) * noise


class Gaussian(VectorBottleneck):
    """Draws z = mean + exp(log_std) * noise, with noise ~ N(0, I).

    A linear layer maps the features to the mean and log_std (Kingma and Welling 2014, section 2.4),
    except that a log_std outside [-10, 4] is bounded softly; see `aejax.normal.bounded`.
    """

    @nn.compact
    def __call__(self, features: Array, key: Key | None, given: Given = NOTHING) -> GaussianCode:
        """Draws the code of features [B, ...]; if key is None, z is the mean."""
        statistics = nn.Dense(2 * self.latents, name="statistics")(
            flatten(features).astype(jnp.float32)
        )
        return drawn(statistics, key)


def drawn(statistics: Array, key: Key | None) -> GaussianCode:
    """Draws a code from a diagonal Gaussian; if key is None, z is the mean.

    Args:
      statistics: f32[B, 2 L], the means followed by the log standard deviations, which are bounded
        here.
      key: the random key of the draw, or None.
    """
    mean, log_std = mean_and_log_std(statistics)
    code = GaussianCode(mean, mean, log_std)
    return code if key is None else code._replace(z=code.redraw(key))
