"""Bounds: how the log-ratios of K draws are reduced to one cost.

The cost of a draw is c[k, b] = log q(z_k | x_b) - log p(x_b, z_k). If the objective's ratio terms
sum to just that, every bound here is an upper bound of -log p(x_b).

    bound         value                                gradient of the encoder
    mean          the negative ELBO                    exact gradient of the value
    iwae          -log of the mean weight              exact gradient of the value
    miwae(M)      mean of M iwae's of K / M draws      exact gradient of the value
    ciwae(beta)   beta * mean + (1 - beta) * iwae      exact gradient of the value
    dreg          equal to iwae                        iwae's with lower variance; needs
                                                       rate(stick=True)
    piwae(M)      equal to iwae                        equal to that of miwae(M)

"Sticking the landing" is not a bound of its own: it is `mean` with rate(stick=True).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from aejax.checks import sensible, whole
from aejax.errors import UserError
from aejax.types import Array, Bound

# The smallest total weight of a group of draws; without it, float32 would round the group to 0.
_LEAST = 1e-20


def _mean(cost: Array) -> Array:
    """Computes the negative ELBO, f32[B], of costs f32[K, B]."""
    return jnp.mean(cost, axis=0)


def _importance_weighted(cost: Array) -> Array:
    """Computes -log mean_k exp(-c_k), f32[B], of costs f32[K, B] (Burda et al. 2016, eq. 8)."""
    return math.log(cost.shape[0]) - jax.nn.logsumexp(-cost, axis=0)


mean = Bound(_mean)
iwae = Bound(_importance_weighted)


def _doubly(weight: Array, stuck: Array) -> Array:
    """Computes the doubly reparameterised weights of the gradient through the codes.

    With the cost beta log q + ..., the gradient through the parameters of log q, E[w beta d log q],
    equals -E[beta w (1 - w) dc/dz dz] (Tucker et al. 2019, appendix A, where beta is 1). A
    rate(stick=True) of weight beta omits this gradient. Adding it to the weight w of the path
    through z gives (1 - beta) w + beta w^2.

    Args:
      weight: w, f32[..., K, B], normalised over the draws that the bound averages in a logarithm.
      stuck: beta, f32[], the weight of the terms rate(stick=True); 0 returns w unchanged.
    """
    return weight * ((1.0 - stuck) + stuck * weight)


# DReG replaces w by w^2 in the encoder's gradient (Tucker et al. 2019, equation 8).
dreg = Bound(_importance_weighted, _doubly, sticks=True)


def miwae(groups: int) -> Bound:
    """Returns the mean of the importance-weighted bounds of M groups (Rainforth et al. 2018).

    Each group has K / M of the draws, so miwae(1) is iwae and miwae(K) is the mean.

    Args:
      groups: the number of groups M, which must divide K.

    Returns:
      A Bound.

    Raises:
      UserError: if groups < 1; when first used, if M does not divide K.
    """
    _check_groups(groups)

    def reduce(cost: Array) -> Array:
        grouped = _grouped(cost, groups)
        weighted = math.log(grouped.shape[1]) - jax.nn.logsumexp(-grouped, axis=1)
        return jnp.mean(weighted, axis=0)

    return Bound(reduce)


def ciwae(beta: float) -> Bound:
    """Returns the bound beta * mean + (1 - beta) * iwae (Rainforth et al. 2018, equation 15).

    Args:
      beta: the weight of the mean, from 0 (iwae) to 1 (mean).

    Returns:
      A Bound.

    Raises:
      UserError: if beta is outside [0, 1], because the sum then is not a bound.
    """
    if not sensible(beta, lambda beta: 0.0 <= beta <= 1.0):
        raise UserError(f"ciwae has beta = {beta}: give a number from 0 to 1")

    def reduce(cost: Array) -> Array:
        return beta * _mean(cost) + (1.0 - beta) * _importance_weighted(cost)

    return Bound(reduce)


def piwae(groups: int) -> Bound:
    """Returns iwae of all draws for the decoder and miwae(groups) for the encoder.

    The value is iwae's. The gradient through the codes, which trains the encoder, is that of
    miwae(groups), whose signal-to-noise ratio does not fall as K grows (Rainforth et al. 2018).
    With rate(stick=True) this gradient takes its doubly reparameterised form, which has the same
    expectation. The density of a VampPrior depends on the encoder too, through the posteriors of
    its pseudo-inputs; this part of the encoder's gradient is iwae's.

    Args:
      groups: the number of groups M, which must divide K.

    Returns:
      A Bound.

    Raises:
      UserError: if groups < 1; when first used, if M does not divide K.
    """
    _check_groups(groups)

    def reduce(cost: Array) -> Array:
        grouped = _grouped(-jax.lax.stop_gradient(cost), groups)
        share = jax.nn.softmax(jax.nn.logsumexp(grouped, axis=1), axis=0)
        within = jax.nn.softmax(grouped, axis=1)
        # The gradient is iwae's to 20 digits. In a group whose weights would all round to zero in
        # float32, the lower limit _LEAST keeps the ratios of the weights, which `regrade` needs.
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
        raise UserError(f"the bound has groups = {groups}: give a whole number, 1 or more")


def _grouped(values: Array, groups: int) -> Array:
    """Groups neighbouring draws: reshapes f32[K, B] to f32[M, K / M, B]."""
    draws, size = values.shape
    if draws % groups:
        raise UserError(
            f"{draws} draws do not make {groups} equal groups: choose a number of draws that "
            f"{groups} divides"
        )
    return values.reshape((groups, draws // groups, size))
