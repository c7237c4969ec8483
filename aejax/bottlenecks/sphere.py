"""The bottleneck of the hyperspherical autoencoder: a von Mises-Fisher posterior on the sphere."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.bottlenecks.mises_fisher import gaps, log_area, normaliser
from aejax.checks import check_count
from aejax.contracts import NOTHING, Given, VectorBottleneck
from aejax.events import flatten
from aejax.types import Array, Key


class SphereCode(NamedTuple):
    """A draw from q(z | x), the von Mises-Fisher distribution, with its parameters.

    Densities are those on the surface of the unit sphere.
    """

    z: Array  # f32[B, L], unit vectors
    mean: Array  # f32[B, L], the mean directions, unit vectors
    concentration: Array  # f32[B]; at 0 the distribution is uniform
    on_sphere = True  # without an annotation, it is no field

    @property
    def latent(self) -> Array:
        """Returns z, the value whose density the prior evaluates, f32[B, L]."""
        return self.z

    def log_q(self, stick: bool = False) -> Array:
        """Computes log q(z | x), f32[B].

        Args:
          stick: whether to stop the gradient through mean and concentration but not through z.
        """
        mean, concentration = self.mean, self.concentration
        if stick:
            mean, concentration = jax.lax.stop_gradient((mean, concentration))
        # For unit vectors <mean, z> - 1 = -||z - mean||^2 / 2, which does not cancel.
        apart = -0.5 * jnp.sum(jnp.square(self.z - mean), axis=-1)
        return concentration * apart - self._log_constant(concentration)

    def log_prob(self, values: Array) -> Array:
        """Computes log q(values_n | x_b) of all pairs, f32[N, B], for values f32[N, L]."""
        apart = -0.5 * jnp.sum(jnp.square(values[:, None] - self.mean[None]), axis=-1)
        return self.concentration[None] * apart - self._log_constant(self.concentration)[None]

    def redraw(self, key: Key) -> Array:
        """Draws another z for each example, f32[B, L]."""
        gap_key, around_key = jax.random.split(key)
        gap = gaps(gap_key, self.concentration, self.mean.shape[-1])[:, None]
        noise = jax.random.normal(around_key, self.mean.shape)
        along = jnp.sum(noise * self.mean, axis=-1, keepdims=True)
        around = _unit(noise - along * self.mean)
        return (1.0 - gap) * self.mean + jnp.sqrt(jnp.maximum(gap * (2.0 - gap), 1e-30)) * around

    def entropy(self) -> Array:
        """Computes the entropy of q(z | x), f32[B], in nats."""
        excess, short = normaliser(self.concentration, self.mean.shape[-1])
        return log_area(self.mean.shape[-1]) + excess + short

    def _log_constant(self, concentration: Array) -> Array:
        dimensions = self.mean.shape[-1]
        return normaliser(concentration, dimensions)[0] + log_area(dimensions)


class VonMisesFisher(VectorBottleneck):
    """Draws unit vectors z around a mean direction (Davidson et al. 2018; S-VAE).

    A linear layer maps the features to the mean direction and the concentration, which is softplus
    of its output. Use it with the prior `priors.Hypersphere`, with which the KL has a closed form.
    The latents are L numbers with L - 1 degrees of freedom.
    """

    def __post_init__(self) -> None:
        """Raises UserError unless there are 2 latents or more."""
        check_count(self, 2, "latents")
        super().__post_init__()

    @nn.compact
    def __call__(self, features: Array, key: Key | None, given: Given = NOTHING) -> SphereCode:
        """Draws the code of features [B, ...]; if key is None, z is the mean direction."""
        statistics = nn.Dense(self.latents + 1, name="statistics")(
            flatten(features).astype(jnp.float32)
        )
        mean, concentration = _unit(statistics[:, 1:]), nn.softplus(statistics[:, 0])
        code = SphereCode(mean, mean, concentration)
        return code if key is None else code._replace(z=code.redraw(key))


def _unit(values: Array) -> Array:
    """Divides vectors f32[B, L] by their norms; a vector of norm 0 stays 0."""
    return values * jax.lax.rsqrt(jnp.sum(jnp.square(values), axis=-1, keepdims=True) + 1e-30)
