"""The standard normal prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aejax.contracts import DiagonalCode, Prior
from aejax.normal import normal_log_prob
from aejax.types import Array, Key


class Standard(Prior):
    """The standard normal N(0, 1) in every dimension; the context is ignored."""

    def log_prob(self, z: Array, context: Any = None, posterior: Any = None) -> Array:
        """Computes log p(z), f32[B], in nats, for z f32[B, L]."""
        zeros = jnp.zeros_like(z)
        return jnp.sum(normal_log_prob(z, zeros, zeros), axis=-1)

    def sample(
        self, key: Key, n: int, shape: Sequence[int], context: Any = None, posterior: Any = None
    ) -> Array:
        """Draws n latents, f32[n, *shape]."""
        return jax.random.normal(key, (n, *shape))

    def kl(self, code: Any, context: Any = None, posterior: Any = None) -> Array | None:
        """Computes KL(q || N(0, 1)) per dimension, f32[B, L] (Kingma and Welling 2014, appendix B).

        It returns None if the code is not a diagonal Gaussian.
        """
        if not isinstance(code, DiagonalCode):
            return None
        variance = jnp.exp(2.0 * code.log_std)
        return 0.5 * (jnp.square(code.mean) + variance - 1.0) - code.log_std
