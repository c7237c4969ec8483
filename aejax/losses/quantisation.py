"""Terms of quantised codes: commitment, and how much of the codebook is in use.

VQ-VAE    merge(reconstruction(), {"commitment": (0.25, commitment)},
                watch(used=codes_used, perplexity=perplexity))
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from aejax.errors import UserError
from aejax.types import Array, Forward


def commitment(model: Any, forward: Forward) -> Array:
    """||encoded - sg(code vector)||^2, f32[B], summed over positions (van den Oord et al. 2017,
    equation 3)."""
    code = forward.code
    apart = code.encoded - jax.lax.stop_gradient(code.z)
    return jnp.sum(jnp.square(apart), axis=tuple(range(1, apart.ndim)))


def codes_used(model: Any, forward: Forward) -> Array:
    """The share of the codebook used in the last whole window of steps, same for all B, f32[B]."""
    counts = _usage(model)
    return jnp.full((forward.batch.target.shape[0],), jnp.mean(counts > 0))


def perplexity(model: Any, forward: Forward) -> Array:
    """exp of the entropy of the codes used in the last whole window, same for all B, f32[B].

    The number of codes that, evenly used, would say as much; 1 before the first window is whole.
    """
    counts = _usage(model)
    share = counts / jnp.maximum(jnp.sum(counts), 1.0)
    entropy = -jnp.sum(share * jnp.log(jnp.where(share > 0, share, 1.0)))
    return jnp.full((forward.batch.target.shape[0],), jnp.exp(entropy))


def _usage(model: Any) -> Array:
    """How often each vector was chosen in the last whole window, f32[codes]."""
    if not hasattr(model.bottleneck, "usage"):
        raise UserError(
            f"{type(model.bottleneck).__name__} does not count how often each code is chosen: use "
            "codes_used and perplexity with VectorQuantised"
        )
    return model.bottleneck.usage()
