"""Mu-law companding, by which quiet samples are coded more finely than loud ones (ITU-T G.711)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from aejax.types import Array

MU = 255.0


def mu_law(x: Array, mu: float = MU) -> Array:
    """Compresses samples in [-1, 1] to [0, 1], where 0 becomes 1/2; other samples are clipped.

    It is (1 + sign(x) log(1 + mu |x|) / log(1 + mu)) / 2.
    """
    x = jnp.clip(x, -1.0, 1.0)
    compressed = jnp.sign(x) * jnp.log1p(mu * jnp.abs(x)) * np.float32(1.0 / np.log1p(mu))
    return 0.5 * (1.0 + compressed)


def expand(values: Array, mu: float = MU) -> Array:
    """Inverts `mu_law`: converts values in [0, 1] to samples in [-1, 1]."""
    compressed = 2.0 * values - 1.0
    return jnp.sign(compressed) * jnp.expm1(jnp.abs(compressed) * np.float32(np.log1p(mu))) / mu
