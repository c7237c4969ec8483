"""The maximum mean discrepancy (MMD), a divergence between the aggregate posterior and the prior.

WAE-MMD    merge(reconstruction(), {"mmd": (10.0, mmd())})
InfoVAE    {"rate": (1 - alpha, kl), "distortion": (1.0, distortion), "mmd": (weight, mmd())}
           where weight = alpha + lambda - 1 in the symbols of the paper
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from aejax.errors import UserError
from aejax.events import joined
from aejax.types import Array, Forward, Term

# Maps squared distances f32[B, B] and the number of latents L to kernel values f32[B, B].
Kernel = Callable[[Array, int], Array]


def inverse_multiquadric(
    scales: Sequence[float] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0), std: float = 1.0
) -> Kernel:
    """Returns the kernel sum_s C s / (C s + d^2) with C = 2 L std^2, for codes at distance d.

    L is the number of latents. Source: Tolstikhin et al. 2018, section 4.

    Args:
      scales: the scales s of the summands.
      std: the prior's standard deviation in each dimension.
    """

    def kernel(squares: Array, latents: int) -> Array:
        widths = [2.0 * latents * std**2 * scale for scale in scales]
        return sum((width / (width + squares) for width in widths), jnp.zeros_like(squares))

    return kernel


def gaussian_kernel(width: float = 1.0) -> Kernel:
    """Returns the kernel exp(-d^2 / (width L)) for codes at distance d, with L latents.

    With width = L it is the kernel in the published program of InfoVAE (Zhao et al. 2017), which
    averages squared distances over the L latents and then divides by L once more.
    """

    def kernel(squares: Array, latents: int) -> Array:
        return jnp.exp(-squares / (width * latents))

    return kernel


def mmd(kernel: Kernel | None = None) -> Term:
    """Returns the squared MMD between the B codes of a batch and B prior samples as a term, f32[B].

    The value is the unbiased estimate (Gretton et al. 2012, equation 3; Tolstikhin et al. 2018,
    algorithm 2), which may be negative. It is repeated for all examples.

    Args:
      kernel: `inverse_multiquadric()` or `gaussian_kernel()`; None: `inverse_multiquadric()`.

    Raises:
      UserError: when the term is evaluated without a key, or on a batch of one example.
    """
    kernel = inverse_multiquadric() if kernel is None else kernel

    def mmd(model: Any, forward: Forward) -> Array:
        size = forward.batch.target.shape[0]
        if forward.key is None:
            raise UserError(
                "the term mmd draws from the prior, but there is no key: call the model with a key"
            )
        drawn = model.sample_latent(forward.key, size, forward.batch.context)
        return jnp.full((size,), discrepancy(joined(forward.code.latent), joined(drawn), kernel))

    return mmd


def discrepancy(one: Array, other: Array, kernel: Kernel) -> Array:
    """Computes the unbiased squared MMD, f32[], between two samples of the same shape f32[B, L].

    Raises:
      UserError: if B is 1, because the estimate compares pairs of points within a sample.
    """
    size = one.shape[0]
    if size < 2:
        raise UserError("mmd compares the codes within a batch: give batches of 2 or more examples")
    within = 1.0 - jnp.eye(size)
    same = jnp.sum(within * (_gram(one, one, kernel) + _gram(other, other, kernel)))
    return same / (size * (size - 1)) - 2.0 * jnp.mean(_gram(one, other, kernel))


def _gram(one: Array, other: Array, kernel: Kernel) -> Array:
    """Computes the kernel of all pairs of a row of `one` and a row of `other`, f32[B, B]."""
    shape = (one.shape[0], *other.shape)
    apart = jnp.broadcast_to(one[:, None], shape) - jnp.broadcast_to(other[None], shape)
    return kernel(jnp.sum(jnp.square(apart), axis=-1), one.shape[1])
