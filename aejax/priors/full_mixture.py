"""A mixture of Gaussians with full covariance matrices as a prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from aejax.normal import LOG_2PI
from aejax.priors.components import Components, chosen
from aejax.types import Array, Key


class FullMixture(Components):
    """The prior sum_k weight_k N(mean_k, covariance_k), all of whose parameters are learned.

    The covariance is F F^T for a lower-triangular factor F, whose diagonal is the exponential of
    that of the parameter. `ae.samplers.gaussian_mixture` fits the parameters to the codes of a
    trained model. The KL has no closed form, so use elbo(rate=losses.rate()). The context is
    ignored.
    """

    def log_prob(self, z: Array, context: Any = None, posterior: Any = None) -> Array:
        """Computes log p(z), f32[B], in nats, for z f32[B, L]."""
        logits, mean, factor = self._parameters(z.shape[-1])
        apart = z.T[None] - mean[..., None]  # f32[C, L, B]
        noise = jax.scipy.linalg.solve_triangular(factor, apart, lower=True)
        log_det = jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)
        each = -0.5 * jnp.sum(jnp.square(noise) + LOG_2PI, axis=1) - log_det[:, None]
        return jax.nn.logsumexp(each + jax.nn.log_softmax(logits)[:, None], axis=0)

    def sample(
        self, key: Key, n: int, shape: Sequence[int], context: Any = None, posterior: Any = None
    ) -> Array:
        """Draws n latents, f32[n, *shape]: first each latent's component, then its value."""
        logits, mean, factor = self._parameters(shape[-1])
        choice, noise = chosen(key, logits, (n, *shape))
        return mean[choice] + jnp.einsum("nij,nj->ni", factor[choice], noise)

    @nn.compact
    def _parameters(self, latents: int) -> tuple[Array, Array, Array]:
        """Returns the logits f32[C], the means f32[C, L] and the factors f32[C, L, L]."""
        zeros = nn.initializers.zeros_init()
        size = (self.components, latents)
        raw = self.param("factor", zeros, (*size, latents))
        diagonal = jnp.exp(jnp.diagonal(raw, axis1=-2, axis2=-1))
        factor = jnp.tril(raw, -1) + diagonal[..., None] * jnp.eye(latents)[None]
        return (
            *self.weights_and_means(latents),
            factor,
        )


def mixture(weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> Any:
    """Returns a mixture of K given Gaussians: the prior, and its parameters.

    Args:
      weights: the probabilities of the Gaussians, f[K].
      means: their means, f[K, L].
      covariances: their covariance matrices, f[K, L, L].
    """
    factor = np.linalg.cholesky(covariances)
    diagonal = np.diagonal(factor, axis1=1, axis2=2)
    raw = np.tril(factor, -1) + np.log(diagonal)[..., None] * np.eye(means.shape[1])
    params = {"logits": np.log(weights), "mean": means, "factor": raw}
    as_float32 = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    return FullMixture(len(weights)), as_float32
