"""The likelihood of data under a model: the ELBO, and -log p(x) by importance weighting.

Each draw of each example has its own key, fold_in(fold_in(key, example), draw). A result therefore
depends neither on `batch` nor on `group`, and a larger K only adds draws to those of a smaller K.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax import losses
from aejax.contracts import RandomCode
from aejax.data.fixed import Fixed, as_data
from aejax.data.split import Split, check_support
from aejax.errors import UserError
from aejax.evaluation.batches import Data, Static, check_key, collect
from aejax.types import Array, Batch, Forward, Key, Variables


class Elbo(NamedTuple):
    """The evidence lower bound and its two terms, in nats: elbo = -(rate + distortion)."""

    elbo: np.ndarray  # f32[N], -(rate + distortion)
    rate: np.ndarray  # f32[N], KL(q(z | x) || p(z))
    distortion: np.ndarray  # f32[N], -E log p(x | z)


class Nll(NamedTuple):
    """An estimate of -log p(x); in expectation it is too large, and less so with more draws."""

    nll: np.ndarray  # f32[N], nats
    effective_sample_size: np.ndarray  # f32[N], from 1 (a single draw has all the weight) to K


def elbo(
    model: Any,
    variables: Variables,
    data: Data,
    key: Key,
    *,
    draws: int = 1,
    batch: int = 500,
    group: int = 10,
) -> Elbo:
    """Computes the ELBO of each example (Kingma and Welling 2014, equation 3).

    Args:
      model: a model with a prior and a likelihood.
      variables: the variables of one model, without a leading axis of seeds.
      data: N examples: a split, an array [N, *event], or a Batch.
      key: the key of the draws.
      draws: K, the number of codes over which the expectation is averaged.
      batch: the number of examples at a time.
      group: the number of draws at a time; memory grows with batch * group.

    Returns:
      Elbo. The rate is computed in closed form if the prior has one, and otherwise from the draws.

    Raises:
      UserError: if the model has no prior, likelihood or posterior density, if a target is outside
        the support of the likelihood, such as [0, 1] for a Bernoulli, or if draws < 1.
    """
    check(model, key, draws, group)
    check_targets(model, data)
    evaluate = functools.partial(
        _mean_terms, Static(model), variables, key, draws, min(group, draws)
    )
    rate, distortion = collect(evaluate, data, batch)
    return Elbo(-(rate + distortion), rate, distortion)


def nll(
    model: Any,
    variables: Variables,
    data: Data,
    key: Key,
    *,
    draws: int = 100,
    batch: int = 100,
    group: int = 10,
) -> Nll:
    """Estimates -log p(x) of each example by importance sampling (Burda et al. 2016, equation 8).

    The estimate is -log mean_k p(x, z_k) / q(z_k | x) over K draws z_k from q(z | x).

    Args:
      model: a model with a prior and a likelihood.
      variables: the variables of one model, without a leading axis of seeds.
      data: N examples: a split, an array [N, *event], or a Batch.
      key: the key of the draws.
      draws: K, the number of importance samples; published tables usually use 5000.
      batch: the number of examples at a time.
      group: the number of draws at a time. Memory grows with batch * group, not with K. On CPUs, a
        batch * group above about a thousand exceeds the cache and is slower.

    Returns:
      Nll, with the effective sample size (sum w)^2 / sum w^2 of the K weights.

    Raises:
      UserError: in the cases that `elbo` names.
    """
    check(model, key, draws, group)
    check_targets(model, data)
    evaluate = functools.partial(
        importance, Static(model), variables, key, draws, min(group, draws)
    )
    return Nll(*collect(evaluate, data, batch))


def check_targets(model: Any, data: Data) -> None:
    """Raises UserError if a target is outside the support of the model's likelihood."""
    data = as_data(data)
    if isinstance(data, Split | Fixed):
        check_support(data, model.likelihood.support)


def check(model: Any, key: Key, draws: int, group: int) -> None:
    """Checks arguments that `elbo` and `nll` share.

    Raises:
      UserError: if the key is an rbg key, draws or group is below 1, or the model has no prior or
        no likelihood.
    """
    check_key(key)
    if draws < 1 or group < 1:
        raise UserError(f"draws is {draws} and group is {group}: give 1 or more of each")
    for part in ("prior", "likelihood"):
        if getattr(model, part) is None:
            raise UserError(
                f"a model without a {part} does not define p(x): evaluate it with "
                f"evaluation.reconstruction, or give Autoencoder a {part}"
            )


@functools.partial(jax.jit, static_argnums=(0, 4))
def importance(
    static: Static,
    variables: Variables,
    key: Key,
    draws: Array,
    group: int,
    batch: Batch,
    index: Array,
) -> tuple[Array, Array]:
    """Returns -log mean w and (sum w)^2 / sum w^2 of each example's K weights w, f32[B] each.

    No shape depends on the number of draws K, so the program is compiled once for every K, and its
    memory does not grow with K.
    """

    forwards = _draws(static.model, variables, batch, key, index, group)

    def add(i: Array, sums: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        largest, first, second = sums
        number = i * group + jnp.arange(group)
        rate, distortion = forwards(number, _sampled_rate)
        # The last group may contain draws beyond the number `draws`; these get weight 0.
        log_weight = jnp.where((number < draws)[None], -(rate + distortion), -jnp.inf)
        new = jnp.maximum(largest, jnp.max(log_weight, axis=1))
        weight, shrink = jnp.exp(log_weight - new[:, None]), jnp.exp(largest - new)
        first = shrink * first + jnp.sum(weight, axis=1)
        second = jnp.square(shrink) * second + jnp.sum(jnp.square(weight), axis=1)
        return new, first, second

    zeros = jnp.zeros(index.shape)
    # The initial maximum is finite, so that no infinity is subtracted from another.
    start = (jnp.full(index.shape, jnp.finfo(zeros.dtype).min), zeros, zeros)
    groups = (draws + group - 1) // group
    largest, first, second = jax.lax.fori_loop(0, groups, add, start)
    mean = largest + jnp.log(first) - jnp.log(draws)
    return -mean, jnp.square(first) / second


@functools.partial(jax.jit, static_argnums=(0, 4))
def _mean_terms(
    static: Static,
    variables: Variables,
    key: Key,
    draws: Array,
    group: int,
    batch: Batch,
    index: Array,
) -> tuple[Array, Array]:
    """Returns the rate and distortion of each example, averaged over the draws, f32[B] each."""

    forwards = _draws(static.model, variables, batch, key, index, group)

    def add(i: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        number = i * group + jnp.arange(group)
        kept = [
            jnp.sum(jnp.where((number < draws)[None], part, 0.0), axis=1)
            for part in forwards(number, _rate)
        ]
        return sums[0] + kept[0], sums[1] + kept[1]

    start = (jnp.zeros(index.shape), jnp.zeros(index.shape))
    sums = jax.lax.fori_loop(0, (draws + group - 1) // group, add, start)
    return sums[0] / draws, sums[1] / draws


def _draws(
    model: Any, variables: Variables, batch: Batch, key: Key, index: Array, group: int
) -> Callable[[Array, Any], tuple[Array, Array]]:
    """Returns a function (draw indices i32[G], rate term) -> rate and distortion, f32[B, G] each.

    Each code is drawn as in a batch of one example, with its own key. All codes then pass through
    the decoder as one batch of B * G rows, because large matrix products are efficient.
    """
    bound = model.bind(variables)
    features = bound.features(batch)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
    repeat = functools.partial(jax.tree.map, lambda leaf: jnp.repeat(leaf, group, axis=0))
    repeated = repeat(batch)

    def example(batch: Batch, features: Any, key: Key, numbers: Array) -> Any:
        single, alone = jax.tree.map(lambda leaf: leaf[None], (batch, features))

        def one(number: Array) -> Any:
            return model.bind(variables).code(single, alone, jax.random.fold_in(key, number))

        return jax.vmap(one)(numbers)

    def forwards(numbers: Array, rate: Any) -> tuple[Array, Array]:
        codes = jax.vmap(example, in_axes=(0, 0, 0, None))(batch, features, keys, numbers)
        code = jax.tree.map(lambda leaf: leaf.reshape((-1, *leaf.shape[3:])), codes)
        forward = bound.explain(repeated, repeat(features), code)
        parts = rate(bound, forward), losses.distortion(bound, forward)
        return parts[0].reshape((-1, group)), parts[1].reshape((-1, group))

    return forwards


def _sampled_rate(model: Any, forward: Forward) -> Array:
    """Returns log q(z | x) - log p(z) at the drawn z, f32[B]."""
    if not isinstance(forward.code, RandomCode):
        raise UserError(
            f"a {type(forward.code).__name__} has no density q(z | x), so the model has no ELBO "
            "and no NLL: evaluate it with evaluation.reconstruction, or use a bottleneck that "
            "draws z, such as Gaussian"
        )
    return losses.rate()(model, forward)


def _rate(model: Any, forward: Forward) -> Array:
    """Returns the KL, f32[B], in closed form if the prior has one, and otherwise at the drawn z."""
    closed = model.prior.kl(forward.code, forward.batch.context, model.posterior)
    return _sampled_rate(model, forward) if closed is None else jnp.sum(closed, axis=-1)
