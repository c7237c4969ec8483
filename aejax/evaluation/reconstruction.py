"""The error of reconstructions, computed without noise in the code."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax import losses
from aejax.evaluation.batches import Data, Static, collect
from aejax.events import sum_events
from aejax.types import Array, Batch, Variables


class Reconstruction(NamedTuple):
    """The errors of each example, in squared units of the target."""

    squared_error: np.ndarray  # f32[N], summed over the event
    mean_square: np.ndarray  # f32[N], averaged over the elements that the mask keeps


def reconstruction(
    model: Any, variables: Variables, data: Data, *, batch: int = 500
) -> Reconstruction:
    """Computes the squared error between each target and its reconstruction without noise.

    Args:
      model: any Autoencoder.
      variables: the variables of one model, without a leading axis of seeds.
      data: N examples: a split, an array [N, *event], or a Batch.
      batch: the number of examples at a time.
    """
    return Reconstruction(
        *collect(functools.partial(_errors, Static(model), variables), data, batch)
    )


@functools.partial(jax.jit, static_argnums=0)
def _errors(
    static: Static, variables: Variables, batch: Batch, index: Array
) -> tuple[Array, Array]:
    """Returns each reconstruction's summed and mean squared error, f32[B] each."""
    bound = static.model.bind(variables)
    error = losses.squared_error(bound, bound(batch))
    elements = sum_events(jnp.ones(batch.target.shape), batch.mask)
    return error, error / jnp.maximum(elements, 1.0)
