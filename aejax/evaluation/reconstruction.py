"""How far the reconstruction without noise is from the target."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax import losses
from aejax.evaluation.parts import Data, Static, collect
from aejax.events import sum_events
from aejax.types import Array, Batch, Variables


class Reconstruction(NamedTuple):
    """Errors of each example, in the target's units squared."""

    squared_error: np.ndarray  # f32[N], summed over the event
    mean_square: np.ndarray  # f32[N], mean over the elements that the mask leaves


def reconstruction(
    model: Any, variables: Variables, data: Data, *, batch: int = 500
) -> Reconstruction:
    """The squared error of the expected target given the code without noise.

    Args:
      model: any Autoencoder.
      variables: of one member.
      data: N examples.
      batch: examples at a time.
    """
    return Reconstruction(
        *collect(functools.partial(_errors, Static(model), variables), data, batch)
    )


@functools.partial(jax.jit, static_argnums=0)
def _errors(
    static: Static, variables: Variables, batch: Batch, index: Array
) -> tuple[Array, Array]:
    """f32[B] both."""
    bound = static.model.bind(variables)
    error = losses.squared_error(bound, bound(batch))
    elements = sum_events(jnp.ones(batch.target.shape), batch.mask)
    return error, error / jnp.maximum(elements, 1.0)
