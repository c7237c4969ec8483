"""Bounds: how the log-ratios of K draws are reduced to one cost.

The cost of a draw is c[k, b], the weighted sum of the objective's terms that are marked by
`losses.ratio`. If it equals log q(z_k | x_b) - log p(x_b, z_k), as for an ELBO with beta = 1, then
every bound here is an upper bound of -log p(x_b). The importance weight of a draw is exp(-c[k, b]).

    bound         value                                gradient for the encoder
    mean          the negative ELBO                    the gradient of the value
    iwae          -log of the mean importance weight   the gradient of the value
    miwae(M)      the mean of iwae over M groups of    the gradient of the value
                  K / M draws
    ciwae(beta)   beta * mean + (1 - beta) * iwae      the gradient of the value
    dreg          the value of iwae                    an estimate of iwae's gradient with lower
                                                       variance, which needs rate(stick=True)
    piwae(M)      the value of iwae                    the gradient of miwae(M)

"Sticking the landing" is not a separate bound: it is `mean` with rate(stick=True).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from aejax.checks import sensible, whole
from aejax.errors import UserError
from aejax.types import Array, Bound

# The smallest share of the total weight that a group of draws may have. A smaller share could be
# rounded to 0 in float32.
_LEAST = 1e-20


def _mean(cost: Array) -> Array:
    """Computes the mean over K draws of their costs f32[K, B], f32[B]: the negative ELBO."""
    return jnp.mean(cost, axis=0)


def _importance_weighted(cost: Array) -> Array:
    """Computes -log mean_k exp(-c_k), f32[B], of costs f32[K, B] (Burda et al. 2016, eq. 8)."""
    return math.log(cost.shape[0]) - jax.nn.logsumexp(-cost, axis=0)


mean = Bound(_mean)
iwae = Bound(_importance_weighted)


def _doubly(weight: Array, stuck: Array) -> Array:
    """Computes the weights of the doubly reparameterised gradient through the codes.

    If log q has the weight beta in the cost c, the gradient through the parameters of log q is
    E[w beta d log q], which equals -E[beta w (1 - w) dc/dz dz] (Tucker et al. 2019, appendix A, for
    beta = 1). The term rate(stick=True) omits it. The gradient through z has the weight w. The sum
    of both is the gradient through z with the weight (1 - beta) w + beta w^2, which is returned.

    Args:
      weight: w, f32[..., K, B], the importance weights, normalised to sum 1 over K.
      stuck: beta, f32[], the weight of the term rate(stick=True); if it is 0, w is returned.
    """
    return weight * ((1.0 - stuck) + stuck * weight)


# DReG replaces w by w^2 in the encoder's gradient (Tucker et al. 2019, equation 8).
dreg = Bound(_importance_weighted, _doubly, sticks=True)


def miwae(groups: int) -> Bound:
    """Returns the mean of the iwae bounds of M groups of draws (Rainforth et al. 2018).

    Each group has K / M of the draws, so miwae(1) equals iwae, and miwae(K) equals `mean`.

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
      UserError: if beta is outside [0, 1], because the sum is then not a bound.
    """
    if not sensible(beta, lambda beta: 0.0 <= beta <= 1.0):
        raise UserError(f"ciwae has beta = {beta}: give a number from 0 to 1")

    def reduce(cost: Array) -> Array:
        return beta * _mean(cost) + (1.0 - beta) * _importance_weighted(cost)

    return Bound(reduce)


def piwae(groups: int) -> Bound:
    """Returns the bound that trains the decoder as iwae and the encoder as miwae(groups).

    The value is that of iwae. The gradient through the codes, which trains the encoder, is that of
    miwae(groups), whose signal-to-noise ratio does not fall as K grows with a fixed K / M
    (Rainforth et al. 2018). With rate(stick=True) this gradient is doubly reparameterised, which
    does not change its expectation. The density of a VampPrior depends on the encoder too, through
    the posteriors of its pseudo-inputs; that part of the encoder's gradient is that of iwae.

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
        # If all weights of a group were rounded to zero in float32, their ratios, which `regrade`
        # needs, would be lost. The lower limit _LEAST preserves them, and the relative change of
        # iwae's gradient is only about 1e-20.
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
    """Divides the draws into M groups: reshapes f32[K, B] to f32[M, K / M, B]."""
    draws, size = values.shape
    if draws % groups:
        raise UserError(
            f"{draws} draws cannot be divided into {groups} equal groups: choose a number of draws "
            f"that is a multiple of {groups}"
        )
    return values.reshape((groups, draws // groups, size))
