"""A learned mixture of Gaussians as a prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.normal import normal_log_prob
from aejax.priors.components import Components, chosen
from aejax.types import Array, Key


class Mixture(Components):
    """The prior sum_k weight_k N(mean_k, std_k^2), whose weights, means and stds are learned.

    The Gaussians are diagonal (Dilokthanakul et al. 2017). The KL has no closed form, so use
    elbo(rate=losses.rate()). The context is ignored.
    """

    def log_prob(self, z: Array, context: Any = None, posterior: Any = None) -> Array:
        """Computes log p(z), f32[B], in nats, for z f32[B, L]."""
        logits, mean, log_std = self._parameters(z.shape[-1])
        pairs = jnp.broadcast_to(z[:, None], (z.shape[0], *mean.shape))
        mean, log_std = (jnp.broadcast_to(a[None], pairs.shape) for a in (mean, log_std))
        each = jnp.sum(normal_log_prob(pairs, mean, log_std), axis=-1)
        return jax.nn.logsumexp(each + jax.nn.log_softmax(logits)[None], axis=-1)

    def sample(
        self, key: Key, n: int, shape: Sequence[int], context: Any = None, posterior: Any = None
    ) -> Array:
        """Draws n latents, f32[n, *shape]: first each latent's component, then its value."""
        logits, mean, log_std = self._parameters(shape[-1])
        choice, noise = chosen(key, logits, (n, *shape))
        return mean[choice] + jnp.exp(log_std[choice]) * noise

    @nn.compact
    def _parameters(self, latents: int) -> tuple[Array, Array, Array]:
        """Returns the logits of the weights, f32[C], and the means and log_stds, both f32[C, L]."""
        zeros = nn.initializers.zeros_init()
        size = (self.components, latents)
        return (
            *self.weights_and_means(latents),
            self.param("log_std", zeros, size),
        )
