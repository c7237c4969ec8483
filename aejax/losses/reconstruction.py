"""Reconstruction terms: the negative log-likelihood of the target, and its squared error."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from aejax.errors import UserError
from aejax.events import sum_events
from aejax.losses.marks import ratio
from aejax.types import Array, Forward


@ratio()
def distortion(model: nn.Module, forward: Forward) -> Array:
    """Computes -log p(target | z), f32[B], in nats.

    Raises:
      UserError: if the model has no likelihood.
    """
    if model.likelihood is None:
        raise UserError("distortion needs a likelihood: give Autoencoder one, or use squared_error")
    batch = forward.batch
    return -model.likelihood.log_prob(forward.prediction, batch.target, batch.mask)


def squared_error(model: nn.Module, forward: Forward) -> Array:
    """Computes ||target - predicted mean||^2, f32[B], in squared units of the target."""
    batch = forward.batch
    return sum_events(jnp.square(batch.target - model.mean(forward.prediction)), batch.mask)
