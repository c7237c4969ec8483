"""The Gaussian posterior with full covariance: latents may be correlated given x."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from aejax.contracts import NOTHING, Given, VectorBottleneck
from aejax.events import flatten
from aejax.normal import LOG_2PI, bounded
from aejax.types import Array, Key


class FullGaussianCode(NamedTuple):
    """A draw from q(z | x) = N(location, cholesky cholesky^T), with its parameters.

    The fields are not called mean and log_std, because priors treat a code with these fields as a
    diagonal Gaussian (`contracts.DiagonalCode`), whose closed-form KL would be wrong here.
    """

    z: Array  # f32[B, L]
    location: Array  # f32[B, L]
    cholesky: Array  # f32[B, L, L], lower triangular with a positive diagonal

    @property
    def latent(self) -> Array:
        """Returns z, the value whose density the prior evaluates, f32[B, L]."""
        return self.z

    def log_q(self, stick: bool = False) -> Array:
        """Computes log q(z | x), f32[B].

        Args:
          stick: whether to stop the gradient through location and cholesky but not through z
            (Roeder et al. 2017, equation 8).
        """
        location, cholesky = self.location, self.cholesky
        if stick:
            location, cholesky = jax.lax.stop_gradient((location, cholesky))
        return _log_prob(self.z, location, cholesky)

    def log_prob(self, values: Array) -> Array:
        """Computes log q(values_n | x_b) of all pairs, f32[N, B], for values f32[N, L]."""
        each = jax.vmap(lambda value: _log_prob(value[None], self.location, self.cholesky))
        return each(values)

    def redraw(self, key: Key) -> Array:
        """Draws another z from q(z | x) for each example, f32[B, L]."""
        noise = jax.random.normal(key, self.location.shape)
        return self.location + _product(self.cholesky, noise)


class FullGaussian(VectorBottleneck):
    """Draws z = location + cholesky @ noise, with noise ~ N(0, I).

    See Kingma and Welling 2019, section 2.5.1. A linear layer maps the features to L (L + 3) / 2
    values: the location, the logarithm of the Cholesky factor's diagonal, and the factor's entries
    below the diagonal.
    """

    @nn.compact
    def __call__(
        self, features: Array, key: Key | None, given: Given = NOTHING
    ) -> FullGaussianCode:
        """Draws the code of features [B, ...]; if key is None, z is the location."""
        count = self.latents
        rows, columns = np.tril_indices(count, -1)
        statistics = nn.Dense(2 * count + len(rows), name="statistics")(
            flatten(features).astype(jnp.float32)
        )
        location, log_diagonal, below = jnp.split(statistics, (count, 2 * count), axis=-1)
        cholesky = jnp.exp(bounded(log_diagonal))[..., None] * jnp.eye(count)[None]
        cholesky = cholesky.at[:, rows, columns].set(below)
        code = FullGaussianCode(location, location, cholesky)
        return code if key is None else code._replace(z=code.redraw(key))


def _product(matrices: Array, vectors: Array) -> Array:
    """Multiplies matrices f32[B, L, L] by vectors f32[B, L], in full float32 precision.

    It sums products, because accelerators may round the factors of a matrix product to bfloat16.
    """
    return jnp.sum(matrices * vectors[:, None, :], axis=-1)


def _log_prob(value: Array, location: Array, cholesky: Array) -> Array:
    """Computes log N(value; location, cholesky cholesky^T), f32[B].

    Args:
      value: f32[B, L] or f32[1, L].
      location: the means, f32[B, L].
      cholesky: the Cholesky factors of the covariances, f32[B, L, L].
    """
    difference = jnp.broadcast_to(value, location.shape) - location
    noise = jax.lax.linalg.triangular_solve(
        cholesky, difference[..., None], left_side=True, lower=True
    )[..., 0]
    log_diagonal = jnp.log(jnp.diagonal(cholesky, axis1=-2, axis2=-1))
    return jnp.sum(-0.5 * (jnp.square(noise) + LOG_2PI) - log_diagonal, axis=-1)
