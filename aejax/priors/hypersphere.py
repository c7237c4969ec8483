"""The uniform prior on the unit sphere, for the bottleneck `VonMisesFisher`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aejax.contracts import EntropyCode, Prior
from aejax.types import Array, Key


class Hypersphere(Prior):
    """The uniform distribution on the unit sphere; the context is ignored.

    Densities are those on the surface of the sphere.
    """

    of_sphere = True

    def log_prob(self, z: Array, context: Any = None, posterior: Any = None) -> Array:
        """Computes log p(z), f32[B], in nats, for unit vectors z f32[B, L]: minus the log-area."""
        return jnp.full(z.shape[:1], -_log_area(z.shape[-1]))

    def sample(
        self, key: Key, n: int, shape: Sequence[int], context: Any = None, posterior: Any = None
    ) -> Array:
        """Draws n unit vectors, f32[n, *shape]."""
        noise = jax.random.normal(key, (n, *shape))
        return noise / jnp.linalg.norm(noise, axis=-1, keepdims=True)

    def kl(self, code: Any, context: Any = None, posterior: Any = None) -> Array | None:
        """Computes KL(q || p) as one number for all dimensions, f32[B, 1] (Davidson et al. 2018).

        It is the log-area minus the entropy of q, and None if the code is not on the sphere.
        """
        if not isinstance(code, EntropyCode) or not getattr(code, "on_sphere", False):
            return None
        return (_log_area(code.latent.shape[-1]) - code.entropy())[:, None]


def _log_area(dimensions: int) -> float:
    half = 0.5 * dimensions
    return math.log(2.0) + half * math.log(math.pi) - math.lgamma(half)
