"""The exact likelihood of a model whose latents are a few classes: the sum over all codes."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.evaluation.batches import Data, Static, collect
from aejax.evaluation.likelihood import check_targets
from aejax.types import Array, Batch, Variables

MOST = 100_000  # the most codes that are enumerated


def enumerated(
    model: Any, variables: Variables, data: Data, classes: int, *, batch: int = 100
) -> np.ndarray:
    """Computes -log p(x) = -log sum_z p(z) p(x | z) of each example, f32[N], in nats.

    The posterior is not used, so the difference to an ELBO is the gap that the posterior leaves.

    Args:
      model: a model whose latents are integers, such as that of `GumbelSoftmax`, with a prior and a
        likelihood. Its batches have no context.
      variables: the variables of one model, without a leading axis of seeds.
      data: N examples: a split, an array [N, *event], or a Batch.
      classes: the number of values of each latent.
      batch: the number of examples at a time.

    Raises:
      UserError: if the model lacks a prior of codes or a likelihood, if there are more than
        100,000 codes, or if batches have a context.
    """
    if model.prior is None or model.likelihood is None or not model.prior.of_codes:
        raise UserError(
            "only a model with a likelihood and a prior of integer codes has a sum over all codes: "
            "estimate the likelihood of other models by evaluation.nll"
        )
    shape = model.bottleneck.shape
    count = classes ** math.prod(shape)
    if count > MOST:
        raise UserError(
            f"latents of shape {shape} with {classes} values have {count} codes, more than {MOST}: "
            "estimate the likelihood by evaluation.nll"
        )
    check_targets(model, data)
    places = np.indices((classes,) * math.prod(shape)).reshape((math.prod(shape), -1)).T
    codes = jnp.asarray(places.reshape((-1, *shape)), jnp.int32)
    prior, predictions = _explained(Static(model), variables, codes)
    return collect(
        functools.partial(_nll, Static(model), variables, prior, predictions), data, batch
    )


@functools.partial(jax.jit, static_argnums=0)
def _explained(static: Static, variables: Variables, codes: Array) -> tuple[Array, Any]:
    """Returns log p(z), f32[M], and the prediction of each of M codes, [M, ...]."""
    bound = static.model.bind(variables)
    prior = bound.prior.log_prob(codes, None, bound.posterior)
    return prior, bound.decode(bound.lift(codes))


@functools.partial(jax.jit, static_argnums=0)
def _nll(
    static: Static, variables: Variables, prior: Array, predictions: Any, batch: Batch, index: Array
) -> Array:
    if jax.tree.leaves(batch.context):
        raise UserError("the sum over all codes is that of p(x): give data without a context")
    likelihood, size = static.model.bind(variables).likelihood, batch.target.shape[0]

    def add(total: Array, each: tuple[Array, Any]) -> tuple[Array, None]:
        log_prior, prediction = each
        alike = jax.tree.map(lambda a: jnp.broadcast_to(a[None], (size, *a.shape)), prediction)
        log_prob = likelihood.log_prob(alike, batch.target, batch.mask)
        return jnp.logaddexp(total, log_prior + log_prob), None

    start = jnp.full((size,), -jnp.inf)
    return -jax.lax.scan(add, start, (prior, predictions))[0]
