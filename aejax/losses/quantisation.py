"""Loss terms and metrics of quantised codes: commitment, and how much of the codebook is used.

VQ-VAE    merge(reconstruction(), {"commitment": (0.25, commitment)},
                watch(used=codes_used, perplexity=perplexity))
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from aejax.contracts import Codebook
from aejax.errors import UserError
from aejax.types import Array, Forward


def commitment(model: Any, forward: Forward) -> Array:
    """Computes ||encoded - sg(codebook vector)||^2, f32[B], summed over the positions.

    This is the commitment loss of van den Oord et al. 2017, equation 3; sg stops the gradient.
    """
    code = forward.code
    apart = code.encoded - jax.lax.stop_gradient(code.z)
    return jnp.sum(jnp.square(apart), axis=tuple(range(1, apart.ndim)))


def codes_used(model: Any, forward: Forward) -> Array:
    """Computes the share of codebook vectors chosen in the last complete window of steps, f32[B].

    The value is repeated for all examples. It is 0 until the first window is complete.
    """
    counts = _usage(model)
    return jnp.full((forward.batch.target.shape[0],), jnp.mean(counts > 0))


def perplexity(model: Any, forward: Forward) -> Array:
    """Computes the perplexity of code usage, repeated for all examples, f32[B].

    It is exp(H) for the entropy H of the frequencies with which codebook vectors were chosen in the
    last complete window of steps. If n vectors are chosen equally often, it is n. The value is 1
    until the first window is complete.
    """
    counts = _usage(model)
    share = counts / jnp.maximum(jnp.sum(counts), 1.0)
    entropy = -jnp.sum(share * jnp.log(jnp.where(share > 0, share, 1.0)))
    return jnp.full((forward.batch.target.shape[0],), jnp.exp(entropy))


def _usage(model: Any) -> Array:
    """Returns how often each code was chosen in the last complete window of steps, f32[codes]."""
    if not isinstance(model.bottleneck, Codebook):
        raise UserError(
            f"{type(model.bottleneck).__name__} does not count how often each code is chosen: use "
            "codes_used and perplexity with VectorQuantised"
        )
    return model.bottleneck.usage()
