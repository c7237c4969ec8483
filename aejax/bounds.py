"""Bounds: how K draws of the log-ratio become one cost.

With the cost c[k, b] = log q(z_k | x_b) - log p(x_b, z_k), every bound here is an upper bound of
-log p(x_b) when the cost holds just that.

    mean          the negative ELBO                    decoder and encoder
    iwae          -log of the mean weight              decoder and encoder
    miwae(M)      iwae of K / M draws, M times         decoder and encoder
    ciwae(beta)   between mean and iwae                decoder and encoder
    dreg          iwae's, with rate(stick=True)        the encoder's with less noise
    piwae(M)      iwae's for the decoder               miwae(M)'s for the encoder

"Sticking the landing" is no bound: it is the mean of one draw with rate(stick=True).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from aejax.checks import sensible, whole
from aejax.errors import UserError
from aejax.types import Array, Bound

# Below it a group's share of the weights is kept at it, where float32 would lose the group.
_LEAST = 1e-20


def _mean(cost: Array) -> Array:
    """The negative ELBO: f32[K, B] -> f32[B]."""
    return jnp.mean(cost, axis=0)


def _importance_weighted(cost: Array) -> Array:
    """-log mean_k exp(-c_k): f32[K, B] -> f32[B] (Burda et al. 2016, equation 8)."""
    return math.log(cost.shape[0]) - jax.nn.logsumexp(-cost, axis=0)


mean = Bound(_mean)
iwae = Bound(_importance_weighted)


def _doubly(weight: Array, stuck: Array) -> Array:
    """What weighs the gradient through each code if a share of the score is left out.

    With the cost beta log q + ..., the score's part of the gradient, E[w beta d log q], is
    -E[beta w (1 - w) dc/dz dz] (Tucker et al. 2019, appendix A, where beta is 1), and a rate of
    weight beta that sticks has left it out: beside w, that makes (1 - beta) w + beta w squared.

    Args:
      weight: w f32[..., K, B], normalised over the draws whose logarithm the bound takes.
      stuck: beta f32[], the weight of the rates that stick; 0 leaves w as it is.
    """
    return weight * ((1.0 - stuck) + stuck * weight)


# Doubly reparameterised (Tucker et al. 2019, equation 8): w squared in the place of w.
dreg = Bound(_importance_weighted, _doubly, sticks=True)


def miwae(groups: int) -> Bound:
    """The mean over `groups` of the importance-weighted bound of each (Rainforth et al. 2018).

    With M groups the K draws make M bounds of K / M draws: miwae(1) is iwae, and miwae(K) the mean.

    Args:
      groups: M, which divides the draws.

    Returns:
      A Bound.

    Raises:
      UserError: if groups < 1, or when first used, if the draws do not divide.
    """
    _check_groups(groups)

    def reduce(cost: Array) -> Array:
        grouped = _grouped(cost, groups)
        weighted = math.log(grouped.shape[1]) - jax.nn.logsumexp(-grouped, axis=1)
        return jnp.mean(weighted, axis=0)

    return Bound(reduce)


def ciwae(beta: float) -> Bound:
    """beta * mean + (1 - beta) * iwae (Rainforth et al. 2018, equation 15).

    Args:
      beta: from 0, iwae, to 1, the mean.

    Returns:
      A Bound.

    Raises:
      UserError: if beta is outside [0, 1], where the sum is no bound.
    """
    if not sensible(beta, lambda beta: 0.0 <= beta <= 1.0):
        raise UserError(f"beta is {beta}, but a combination of bounds needs 0 <= beta <= 1")

    def reduce(cost: Array) -> Array:
        return beta * _mean(cost) + (1.0 - beta) * _importance_weighted(cost)

    return Bound(reduce)


def piwae(groups: int) -> Bound:
    """iwae of all draws for the decoder, miwae(groups) for the encoder (Rainforth et al. 2018).

    The cost is iwae's. The gradient that flows back through the codes, and so all of the encoder's,
    is miwae's: its signal does not drown in noise as the draws grow. With rate(stick=True) it is
    miwae's in expectation, doubly reparameterised. Only a VampPrior, whose density is made of the
    encoder's own posteriors, gives the encoder iwae's gradient besides, through the pseudo-inputs.

    Args:
      groups: M, which divides the draws.

    Returns:
      A Bound.

    Raises:
      UserError: if groups < 1, or when first used, if the draws do not divide.
    """
    _check_groups(groups)

    def reduce(cost: Array) -> Array:
        grouped = _grouped(-jax.lax.stop_gradient(cost), groups)
        share = jax.nn.softmax(jax.nn.logsumexp(grouped, axis=1), axis=0)
        within = jax.nn.softmax(grouped, axis=1)
        # iwae's gradient to 20 digits; a group whose weights all vanish in float32 keeps their
        # ratios, which regrade needs.
        weight = (jnp.maximum(share, _LEAST)[:, None] * within).reshape(cost.shape)
        value = _importance_weighted(jax.lax.stop_gradient(cost))
        return value + jnp.sum(weight * (cost - jax.lax.stop_gradient(cost)), axis=0)

    def regrade(weight: Array, stuck: Array) -> Array:
        grouped = _grouped(weight, groups)
        within = grouped / jnp.sum(grouped, axis=1, keepdims=True)
        return _doubly(within, stuck).reshape(weight.shape) / groups

    return Bound(reduce, regrade)


def _check_groups(groups: int) -> None:
    if not whole(groups) or groups < 1:
        raise UserError(f"groups is {groups}: the draws make a whole number of groups, 1 or more")


def _grouped(values: Array, groups: int) -> Array:
    """f32[K, B] -> f32[M, K / M, B], neighbouring draws together."""
    draws, size = values.shape
    if draws % groups:
        raise UserError(
            f"{draws} draws do not make {groups} equal groups: choose draws that {groups} divides"
        )
    return values.reshape((groups, draws // groups, size))
