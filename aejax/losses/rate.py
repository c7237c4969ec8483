"""The rate: what the code costs under the prior, in nats, and how much of it is free."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from aejax.checks import sensible
from aejax.errors import UserError
from aejax.losses.marks import ratio
from aejax.types import Array, Forward, Term


@ratio(sampled=False)
def kl(model: nn.Module, forward: Forward) -> Array:
    """KL(q(z | x) || p(z)) in closed form, f32[B] (Kingma and Welling 2014, appendix B).

    Raises:
      TypeError: if posterior and prior have no closed form; `rate()` samples it.
    """
    return jnp.sum(_per_dimension(model, forward), axis=-1)


def rate(stick: bool = False) -> Term:
    """log q(z | x) - log p(z) at the draw itself, f32[B]: its mean over draws is the KL.

    Args:
      stick: hides the gradient of q's parameters but for the path through z (Roeder et al. 2017).
        Unbiased under the mean of any draws, and under bounds that regrade their weights, `dreg`
        and `piwae`.
    """

    @ratio(stick=stick)
    def rate(model: nn.Module, forward: Forward) -> Array:
        _check_prior(model)
        latent, context = forward.code.latent, forward.batch.context
        return forward.code.log_q(stick) - model.prior.log_prob(latent, context, model.posterior)

    return rate


def capacity(limit: optax.ScalarOrSchedule) -> Term:
    """|KL - C|, the same for all B, f32[B]: the KL is drawn to C (Burgess et al. 2018, equation 8).

    The KL is the batch's mean, as in disentanglement_lib: examples may differ. The weight is gamma,
    1000 in the paper: {"rate": (1000.0, capacity(optax.linear_schedule(0.0, 25.0, steps)))}.

    Args:
      limit: C in nats, a number or a schedule of the step.

    Returns:
      A Term in the place of the KL.
    """

    @ratio(sampled=False)
    def capacity(model: nn.Module, forward: Forward) -> Array:
        now = limit(forward.step) if callable(limit) else limit
        values = kl(model, forward)
        return jnp.full(values.shape, jnp.abs(jnp.mean(values) - now))

    return capacity


def free_bits(nats: float, groups: Sequence[int] | None = None) -> Term:
    """sum_g max(nats, mean_B KL_g), the same for all B, f32[B] (Kingma et al. 2016, equation 15).

    A group whose mean KL lies below `nats` feels no pressure to give it up. The value counts what
    is free, so it is no KL: watch `kl` beside it.

    Args:
      nats: free in each group.
      groups: sizes of consecutive groups of latents, such as the levels of a hierarchy, which add
        up to L; None: each latent is a group.

    Returns:
      A Term in the place of the KL.

    Raises:
      UserError: if nats < 0 or not finite; when first used, if the groups do not add up to L.
    """
    if not sensible(nats, lambda nats: 0 <= nats < math.inf):
        raise UserError(f"nats is {nats}, but a KL is never negative: give 0 or more")

    @ratio(sampled=False)
    def free_bits(model: nn.Module, forward: Forward) -> Array:
        values = _per_dimension(model, forward)
        means = jnp.mean(values, axis=0)
        if groups is not None:
            # No matrix product, which accelerators round to bfloat16.
            means = jnp.sum(means[:, None] * _membership(groups, means.shape[0]), axis=0)
        return jnp.full(values.shape[:1], jnp.sum(jnp.maximum(means, nats)))

    return free_bits


def _per_dimension(model: nn.Module, forward: Forward) -> Array:
    """The KL of each latent, f32[B, L]."""
    _check_prior(model)
    values = model.prior.kl(forward.code, forward.batch.context, model.posterior)
    if values is None:
        raise TypeError(
            f"the KL of {type(forward.code).__name__} under {type(model.prior).__name__} has no "
            "closed form: use losses.rate()"
        )
    return values


def _check_prior(model: nn.Module) -> None:
    if model.prior is None:
        raise UserError(
            "the rate is what a code costs under a prior, and this model has none: give "
            "Autoencoder a prior, or take the objective reconstruction() or sparse()"
        )


def _membership(groups: Sequence[int], latents: int) -> np.ndarray:
    """f32[L, G]: one where latent l belongs to group g."""
    if sum(groups) != latents or min(groups, default=0) < 1:
        raise UserError(
            f"the groups {tuple(groups)} of free_bits hold {sum(groups)} latents, but the code has "
            f"{latents}: give sizes of 1 or more that add up to {latents}"
        )
    return np.repeat(np.eye(len(groups), dtype=np.float32), groups, axis=0)
