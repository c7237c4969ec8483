"""Loss terms of the aggregate posterior q(z), for beta-TCVAE, DIP-VAE and FactorVAE.

    beta-TCVAE    merge(elbo(rate=rate()), {"tc": (beta - 1, total_correlation(examples=N))})
                  because rate = mutual_information(N) + total_correlation(N) + dimension_wise_kl(N)
    FactorVAE     merge(elbo(), {"tc": (gamma, density_ratio()), "critic": (1.0, critic())})
    DIP-VAE-I     merge(elbo(), {"dip": (10.0, dip_i())})

The critic of FactorVAE is an MLP with output shape (1,), stored in the model's `parts`. Use
optax.multi_transform to give it its own learning rate.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from aejax.errors import UserError
from aejax.events import joined
from aejax.losses.frozen import frozen, part_of
from aejax.normal import normal_log_prob
from aejax.types import Array, Forward, Key, Term


def mutual_information(examples: int) -> Term:
    """Returns the term log q(z | x) - log q(z), f32[B], whose mean is I(x; z).

    See Chen et al. 2018, equation 2.

    Args:
      examples: N, the size of the training set; the estimate of q(z) from a batch depends on it.
    """

    def mutual_information(model: Any, forward: Forward) -> Array:
        joint, _ = _aggregate(forward.code, examples)
        return forward.code.log_q() - joint

    return mutual_information


def total_correlation(examples: int) -> Term:
    """Returns the term log q(z) - sum_j log q(z_j), f32[B] (Chen et al. 2018, equation 2).

    Args:
      examples: N, the size of the training set; the estimate of q(z) from a batch depends on it.
    """

    def total_correlation(model: Any, forward: Forward) -> Array:
        joint, marginals = _aggregate(forward.code, examples)
        return joint - marginals

    return total_correlation


def dimension_wise_kl(examples: int) -> Term:
    """Returns the term sum_j log q(z_j) - log p(z), f32[B] (Chen et al. 2018, equation 2).

    Args:
      examples: N, the size of the training set; the estimate of q(z) from a batch depends on it.
    """

    def dimension_wise_kl(model: Any, forward: Forward) -> Array:
        _, marginals = _aggregate(forward.code, examples)
        context = forward.batch.context
        return marginals - model.prior.log_prob(forward.code.latent, context, model.posterior)

    return dimension_wise_kl


def stratified_weights(batch: int, examples: int) -> Array:
    """Returns log W, f32[B, B], in the estimate log q(z_i) = log sum_j W[i, j] q(z_i | x_j).

    W[i, i] is exactly 1 / N, because x_i is one of the N examples. The other B - 1 examples of the
    batch represent the remaining N - 1 examples, so each has the weight (N - 1) / (N (B - 1)).
    Chen et al. 2018, appendix C.2, give one of these B - 1 another weight. The expectation is the
    same, but only with equal weights is every weight 1 / N if the batch is the whole data set.

    Raises:
      UserError: if the batch has one example, or more than N.
    """
    if not 1 < batch <= examples:
        raise UserError(
            f"a batch of {batch} cannot represent {examples} examples: total correlation needs a "
            "batch of 2 or more, and `examples` must be the size of the training set"
        )
    other = math.log((examples - 1) / (examples * (batch - 1)))
    return jnp.where(jnp.eye(batch, dtype=bool), -math.log(examples), other)


def _aggregate(code: Any, examples: int) -> tuple[Array, Array]:
    """Estimates log q(z) and sum_j log q(z_j) at each draw, both f32[B], from the minibatch."""
    z, mean, log_std = code.z, code.mean, code.log_std
    shape = (z.shape[0], *z.shape)
    pairs = (jnp.broadcast_to(a, shape) for a in (z[:, None], mean[None], log_std[None]))
    density = normal_log_prob(*pairs)  # f32[B, B, L], log q(z_i | x_j)
    weights = stratified_weights(z.shape[0], examples)
    joint = jax.nn.logsumexp(weights + jnp.sum(density, axis=-1), axis=1)
    marginals = jax.nn.logsumexp(weights[:, :, None] + density, axis=1)
    return joint, jnp.sum(marginals, axis=-1)


def dip_i(ratio: float = 10.0) -> Term:
    """Returns the term of DIP-VAE-I, which makes the posterior means' covariance C the identity.

    Its value is sum_{i != j} C_ij^2 + ratio sum_i (C_ii - 1)^2 (Kumar et al. 2018, equation 6),
    repeated for all examples, f32[B]. Its weight in an objective is the paper's lambda_od.

    Args:
      ratio: lambda_d / lambda_od, the weight of the diagonal relative to the off-diagonal sum.
    """

    def dip_i(model: Any, forward: Forward) -> Array:
        return _off_identity(_covariance(forward.code.mean), ratio, forward)

    return dip_i


def dip_ii(ratio: float = 1.0) -> Term:
    """Returns the term of DIP-VAE-II, which makes the covariance of q(z) the identity, f32[B].

    Its value is that of `dip_i` with C = Cov(mean) + E[diag(variance)] (Kumar et al. 2018,
    equation 7).

    Args:
      ratio: lambda_d / lambda_od, the weight of the diagonal relative to the off-diagonal sum.
    """

    def dip_ii(model: Any, forward: Forward) -> Array:
        variance = jnp.mean(jnp.exp(2.0 * forward.code.log_std), axis=0)
        return _off_identity(_covariance(forward.code.mean) + jnp.diag(variance), ratio, forward)

    return dip_ii


def _covariance(values: Array) -> Array:
    """Computes the covariance, f32[L, L], of values f32[B, L] over the batch."""
    centred = values - jnp.mean(values, axis=0, keepdims=True)
    return jnp.matmul(centred.T, centred, precision="highest") / values.shape[0]


def _off_identity(covariance: Array, ratio: float, forward: Forward) -> Array:
    diagonal = jnp.diagonal(covariance)
    off = jnp.sum(jnp.square(covariance - jnp.diag(diagonal)))
    value = off + ratio * jnp.sum(jnp.square(diagonal - 1.0))
    return jnp.full((forward.batch.target.shape[0],), value)


def density_ratio(part: str = "critic") -> Term:
    """Returns FactorVAE's total correlation term, f32[B].

    The critic's logit estimates log q(z) - sum_j log q(z_j). The gradient flows to the encoder but
    not to the critic (Kim and Mnih 2018, equation 3).

    Args:
      part: the critic's name in the model's `parts`, its dictionary of additional modules.
    """

    def density_ratio(model: Any, forward: Forward) -> Array:
        return _logit(frozen(part_of(model, part)), joined(forward.code.latent))

    return density_ratio


def critic(part: str = "critic") -> Term:
    """Returns the loss of FactorVAE's critic, f32[B], in nats.

    It is the cross-entropy of classifying codes and permuted codes. Permuted codes are the codes of
    the same batch, with each dimension permuted independently, as in disentanglement_lib. The
    gradient flows to the critic but not to the encoder (Kim and Mnih 2018, algorithm 2).

    Args:
      part: the critic's name in the model's `parts`, its dictionary of additional modules.
    """

    def critic(model: Any, forward: Forward) -> Array:
        module = part_of(model, part)
        z = jax.lax.stop_gradient(joined(forward.code.latent))
        together = jnp.concatenate([z, permuted(forward.key, z)])
        logits = _logit(module, together)
        real, fake = jnp.split(logits, 2)
        return 0.5 * (jax.nn.softplus(-real) + jax.nn.softplus(fake))

    return critic


def permuted(key: Key | None, z: Array) -> Array:
    """Permutes each column of f32[B, L] independently; if key is None, rolls column j by j rows."""
    if key is None:
        return jnp.stack([jnp.roll(z[:, j], j) for j in range(z.shape[1])], axis=1)
    return jax.random.permutation(key, z, axis=0, independent=True)


def _logit(module: Any, z: Array) -> Array:
    """Returns the critic's logit, f32[B], for each code f32[B, L]."""
    logits = module(z)
    if logits.size != z.shape[0]:
        raise UserError(
            f"the critic's output for each code has shape {logits.shape[1:]}, but one logit is "
            "needed: give the critic shape=(1,)"
        )
    return logits.reshape(z.shape[0])
