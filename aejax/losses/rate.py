"""The rate, which is the KL of the posterior from the prior in nats, and its variants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from aejax.checks import sensible
from aejax.contracts import RandomCode
from aejax.errors import UserError
from aejax.losses.marks import ratio
from aejax.types import Array, Forward, Term


@ratio(sampled=False)
def kl(model: nn.Module, forward: Forward) -> Array:
    """Computes KL(q(z | x) || p(z)) in closed form, f32[B] (Kingma and Welling 2014, appendix B).

    Raises:
      UserError: if the model has no prior, or if the KL of this posterior and prior has no closed
        form; use `rate()` then, which samples it.
    """
    return jnp.sum(_per_dimension(model, forward), axis=-1)


def rate(stick: bool = False) -> Term:
    """Returns the term log q(z | x) - log p(z) at the drawn z, f32[B]; its expectation is the KL.

    Args:
      stick: whether gradients reach the parameters of q through z only ("sticking the landing",
        Roeder et al. 2017). Gradients are unbiased with the bounds `mean`, `dreg` and `piwae`.
    """

    @ratio(stick=stick)
    def rate(model: nn.Module, forward: Forward) -> Array:
        _check_prior(model)
        _check_random(forward.code)
        latent, context = forward.code.latent, forward.batch.context
        _check_codes(model.prior, forward.code)
        return forward.code.log_q(stick) - model.prior.log_prob(latent, context, model.posterior)

    return rate


def capacity(limit: optax.ScalarOrSchedule) -> Term:
    """Returns the term |KL - C|, which keeps the KL near C (Burgess et al. 2018, equation 8).

    The KL is averaged over the batch before it is compared with C, as in disentanglement_lib, and
    the value is repeated for all examples, f32[B]. The weight of the term is the paper's gamma:
    {"rate": (1000.0, capacity(optax.linear_schedule(0.0, 25.0, steps)))}.

    Args:
      limit: C in nats, a number or a schedule of the step.

    Returns:
      A Term to use in place of the KL.
    """

    @ratio(sampled=False)
    def capacity(model: nn.Module, forward: Forward) -> Array:
        now = limit(forward.step) if callable(limit) else limit
        values = kl(model, forward)
        return jnp.full(values.shape, jnp.abs(jnp.mean(values) - now))

    return capacity


def free_bits(nats: float, groups: Sequence[int] | None = None) -> Term:
    """Returns the free-bits term sum_g max(nats, mean_B KL_g), repeated for all examples, f32[B].

    A group of latents whose mean KL is below `nats` gets no gradient from this term (Kingma et al.
    2016, equation 15). The value is larger than the KL if a group is below `nats`, so log the KL
    too, with watch(kl=kl).

    Args:
      nats: the KL up to which a group is not penalised.
      groups: sizes of consecutive groups of latents, such as the levels of a hierarchy; they must
        add up to L. None: each latent is a group.

    Returns:
      A Term to use in place of the KL.

    Raises:
      UserError: if nats is negative or not finite; when first used, if the groups do not add up
        to L.
    """
    if not sensible(nats, lambda nats: 0 <= nats < math.inf):
        raise UserError(f"free_bits has nats = {nats}: give a finite number, 0 or more")

    @ratio(sampled=False)
    def free_bits(model: nn.Module, forward: Forward) -> Array:
        values = _per_dimension(model, forward)
        means = jnp.mean(values, axis=0)
        if groups is not None:
            # This is a sum instead of a matrix product, because accelerators round the factors of
            # matrix products to bfloat16.
            means = jnp.sum(means[:, None] * _membership(groups, means.shape[0]), axis=0)
        return jnp.full(values.shape[:1], jnp.sum(jnp.maximum(means, nats)))

    return free_bits


def _per_dimension(model: nn.Module, forward: Forward) -> Array:
    """Computes the KL of each latent in closed form, f32[B, L]."""
    _check_prior(model)
    _check_random(forward.code)
    _check_codes(model.prior, forward.code)
    values = model.prior.kl(forward.code, forward.batch.context, model.posterior)
    if values is None:
        raise UserError(
            f"the KL of {type(forward.code).__name__} under {type(model.prior).__name__} has no "
            "closed form: use losses.rate(), which samples it, as in "
            "ae.elbo(rate=ae.losses.rate())"
        )
    return values


def _check_random(code: Any) -> None:
    if isinstance(code, RandomCode):
        return
    name = type(code).__name__
    if hasattr(code, "log_q"):
        lacking = [field for field in ("z", "latent") if not hasattr(code, field)]
        raise UserError(
            f"the rate reads z, latent and log_q(stick) of a code, and {name} has no "
            f"{' and no '.join(lacking)}: define it, as contracts.RandomCode does"
        )
    raise UserError(
        f"the rate needs a code that is drawn from q(z | x), and {name} is not, as it has no "
        "log_q: use the objective reconstruction(), or sparse() for a sparse code"
    )


def _check_codes(prior: Any, code: Any) -> None:
    """Raises UserError if the prior models indices but the latent is real, or vice versa."""
    leaf = jax.tree.leaves(code.latent)[0]
    whole = bool(jnp.issubdtype(leaf.dtype, jnp.integer))
    if whole != prior.of_codes:
        kind = "the indices of codes" if whole else "real numbers"
        raise UserError(
            f"the latent of a {type(code).__name__} holds {kind}, to which the prior "
            f"{type(prior).__name__} gives no probability: pair priors.Codes and "
            "priors.Categorical with GumbelSoftmax, VectorQuantised and FiniteScalarQuantised, and "
            "other priors with other bottlenecks"
        )
    on_sphere = getattr(code, "on_sphere", False)
    if prior.of_sphere is not None and on_sphere != prior.of_sphere:
        what = "lies" if on_sphere else "does not lie"
        raise UserError(
            f"the latent of a {type(code).__name__} {what} on the unit sphere, so the prior "
            f"{type(prior).__name__} gives it no density: pair priors.Hypersphere with "
            "VonMisesFisher, and other priors with other bottlenecks"
        )


def _check_prior(model: nn.Module) -> None:
    if model.prior is None:
        raise UserError(
            "the rate needs a prior, but this model has none: give Autoencoder a prior, or use the "
            "objective reconstruction() or sparse()"
        )


def _membership(groups: Sequence[int], latents: int) -> np.ndarray:
    """Returns f32[L, G], whose entry (l, g) is 1 if latent l belongs to group g, and else 0.

    Raises:
      UserError: if a group's size is below 1, or the sizes do not add up to L.
    """
    if sum(groups) != latents or min(groups, default=0) < 1:
        raise UserError(
            f"the groups {tuple(groups)} of free_bits have {sum(groups)} latents, but the code has "
            f"{latents}: give sizes of 1 or more that add up to {latents}"
        )
    return np.repeat(np.eye(len(groups), dtype=np.float32), groups, axis=0)
