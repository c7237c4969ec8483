"""Decomposes the KL into mutual information, total correlation and dimension-wise KL.

    E KL(q(z | x) || p(z)) = I(x; z) + TC(z) + sum_j [log q(z_j) - log p(z_j)]

Here q(z) is the mean of the posteriors of all N examples, without an approximation. Only the
expectation over z is estimated, from draws (Hoffman and Johnson 2016; Chen et al. 2018, eq. 2).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.contracts import DiagonalCode
from aejax.errors import UserError
from aejax.evaluation.batches import Data, Static, check_key, collect
from aejax.normal import normal_log_prob
from aejax.types import Array, Batch, Key, Variables


class Decomposition(NamedTuple):
    """The sampled KL of each example in nats, and its three terms, which add up to it."""

    kl: np.ndarray  # f32[N], log q(z | x) - log p(z)
    mutual_information: np.ndarray  # f32[N], log q(z | x) - log q(z); at most log N
    total_correlation: np.ndarray  # f32[N], log q(z) - sum_j log q(z_j)
    dimension_wise_kl: np.ndarray  # f32[N], sum_j log q(z_j) - log p(z)


class Posteriors(NamedTuple):
    """The diagonal Gaussian posterior of each example."""

    mean: np.ndarray  # f32[N, L]
    log_std: np.ndarray  # f32[N, L]


def posteriors(model: Any, variables: Variables, data: Data, *, batch: int = 500) -> Posteriors:
    """Returns the parameters of q(z | x) for each example.

    Args:
      model: a model whose posterior is a diagonal Gaussian.
      variables: the variables of one model, without a leading axis of seeds.
      data: N examples: a split, an array [N, *event], or a Batch.
      batch: the number of examples at a time.

    Raises:
      UserError: if the code is not a diagonal Gaussian.
    """
    return Posteriors(
        *collect(functools.partial(_posterior, Static(model), variables), data, batch)
    )


def decomposition(
    model: Any,
    variables: Variables,
    data: Data,
    key: Key,
    *,
    draws: int = 1,
    batch: int = 100,
) -> Decomposition:
    """Computes each example's KL and its three terms, averaged over draws of its code.

    The time grows with N^2.

    Args:
      model: a model with a prior, and a posterior that is a diagonal Gaussian.
      variables: the variables of one model, without a leading axis of seeds.
      data: N examples (a split, an array or a Batch); q(z) is the mean of their posteriors.
      key: the key of the draws.
      draws: the number of codes drawn for each example.
      batch: the number of examples at a time; memory grows with batch * N * L.

    Raises:
      UserError: if there is no prior, if the code is not a diagonal Gaussian, or if draws < 1.
    """
    check_key(key)
    if draws < 1:
        raise UserError(f"draws is {draws}: give 1 or more")
    if model.prior is None:
        raise UserError("a model without a prior has no KL to decompose: give Autoencoder a prior")
    all_posteriors = posteriors(model, variables, data, batch=batch)
    evaluate = functools.partial(_terms, Static(model), variables, all_posteriors)

    def mean_over_draws(part: Batch, index: Array) -> tuple[Array, ...]:
        rows = [evaluate(jax.random.fold_in(key, d), part, index) for d in range(draws)]
        return jax.tree.map(lambda *values: sum(values) / draws, *rows)

    return Decomposition(*collect(mean_over_draws, data, batch))


@functools.partial(jax.jit, static_argnums=0)
def _posterior(
    static: Static, variables: Variables, batch: Batch, index: Array
) -> tuple[Array, Array]:
    """Returns the mean and log_std of each example's posterior, f32[B, L] each."""
    code = static.model.apply(variables, batch, method="posterior")
    _check(code)
    return code.mean, code.log_std


@functools.partial(jax.jit, static_argnums=0)
def _terms(
    static: Static,
    variables: Variables,
    everything: Posteriors,
    key: Key,
    batch: Batch,
    index: Array,
) -> tuple[Array, Array, Array, Array]:
    """Returns the KL and its three terms for one draw of each example's code, f32[B] each."""
    bound = static.model.bind(variables)
    features = bound.features(batch)

    def example(batch: Batch, features: Any, index: Array) -> Any:
        return bound.code(batch, features, jax.random.fold_in(key, index))

    one = jax.tree.map(lambda a: a[:, None], (batch, features))
    code = jax.tree.map(lambda a: a[:, 0], jax.vmap(example)(*one, index))  # pyright: ignore[reportCallIssue]
    z, examples = code.latent, everything.mean.shape[0]
    shape = (z.shape[0], *everything.mean.shape)
    of = (jnp.broadcast_to(a[None], shape) for a in everything)
    density = normal_log_prob(jnp.broadcast_to(z[:, None], shape), *of)  # [B, N, L]
    log_n = jnp.log(jnp.float32(examples))
    joint = jax.nn.logsumexp(jnp.sum(density, axis=-1), axis=1) - log_n
    marginals = jnp.sum(jax.nn.logsumexp(density, axis=1) - log_n, axis=-1)
    own, prior = code.log_q(), bound.prior.log_prob(z, batch.context, bound.posterior)
    return own - prior, own - joint, joint - marginals, marginals - prior


def _check(code: Any) -> None:
    """Raises UserError for a code that is not a diagonal Gaussian."""
    if not isinstance(code, DiagonalCode):
        raise UserError(
            f"this function needs the marginal density of each latent, which a "
            f"{type(code).__name__} does not have: use a model with a diagonal Gaussian posterior"
        )
