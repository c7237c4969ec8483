"""The latents of examples: their codes, their KL per dimension, and the number of active units."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from aejax.bottlenecks import SparseCode
from aejax.errors import UserError
from aejax.evaluation.batches import Data, Static, check_key, collect
from aejax.events import joined
from aejax.types import Array, Batch, Key, Variables


class ActiveUnits(NamedTuple):
    """The latents whose posterior means vary over the examples."""

    count: int  # the number of latents whose variance exceeds the threshold
    variance: np.ndarray  # f64[L], the variance of the posterior mean over the examples


def latents(model: Any, variables: Variables, data: Data, *, batch: int = 500) -> np.ndarray:
    """Returns each example's code without noise: the posterior mean, or the dense sparse code.

    Args:
      model: any Autoencoder.
      variables: the variables of one model, without a leading axis of seeds.
      data: N examples: a split, an array [N, *event], or a Batch.
      batch: the number of examples at a time.

    Returns:
      f32[N, L]; the latents of a hierarchy's levels are concatenated.
    """
    return collect(functools.partial(_latents, Static(model), variables), data, batch)


def kl_per_dimension(
    model: Any, variables: Variables, data: Data, key: Key, *, batch: int = 500
) -> np.ndarray:
    """Returns the KL of each latent, computed in closed form and averaged over the examples.

    Args:
      model: a model whose prior has a closed-form KL for its code.
      variables: the variables of one model, without a leading axis of seeds.
      data: N examples: a split, an array [N, *event], or a Batch.
      key: the key of one draw of each example's code. It matters only where the KL of a latent
        depends on the values of other latents, as in a hierarchy.
      batch: the number of examples at a time.

    Returns:
      f64[L], in nats.

    Raises:
      UserError: if there is no prior, or if the KL has no closed form.
    """
    check_key(key)
    if model.prior is None:
        raise UserError("a model without a prior has no KL: give Autoencoder a prior")
    values = collect(functools.partial(_kl, Static(model), variables, key), data, batch)
    return np.asarray(np.mean(values, axis=0, dtype=np.float64))


def active_units(
    model: Any, variables: Variables, data: Data, *, threshold: float = 1e-2, batch: int = 500
) -> ActiveUnits:
    """Returns the number of latents whose posterior mean varies with x, and their variances.

    See Burda et al. 2016, section 5.2.

    Args:
      model: any Autoencoder.
      variables: the variables of one model, without a leading axis of seeds.
      data: N examples: a split, an array [N, *event], or a Batch.
      threshold: a latent is active if the variance of its posterior mean exceeds this value.
      batch: the number of examples at a time.
    """
    means = latents(model, variables, data, batch=batch)
    variance = np.var(means, axis=0, dtype=np.float64)
    return ActiveUnits(int(np.sum(variance > threshold)), variance)


@functools.partial(jax.jit, static_argnums=0)
def _latents(static: Static, variables: Variables, batch: Batch, index: Array) -> Array:
    """Returns the codes of a batch without noise, f32[B, L]."""
    code = static.model.apply(variables, batch, method="posterior")
    return code.dense() if isinstance(code, SparseCode) else joined(code.latent)


@functools.partial(jax.jit, static_argnums=0)
def _kl(static: Static, variables: Variables, key: Key, batch: Batch, index: Array) -> Array:
    """Returns the KL of each latent of each example in nats, f32[B, L]."""

    def example(batch: Batch, index: Array) -> Array:
        bound = static.model.bind(variables)
        code = bound.code(batch, bound.features(batch), jax.random.fold_in(key, index))
        values = bound.prior.kl(code, batch.context, bound.posterior)
        if values is None:
            raise UserError(
                f"the KL of {type(code).__name__} under {type(bound.prior).__name__} has no "
                "closed form per dimension: use evaluation.elbo, which estimates the rate from "
                "draws"
            )
        return values[0]

    return jax.vmap(example)(jax.tree.map(lambda a: a[:, None], batch), index)
