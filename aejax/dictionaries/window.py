"""A check of a JumpReLU model to run before training starts."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from aejax import losses
from aejax.errors import UserError
from aejax.types import Batch, Variables


def check_window(model: Any, variables: Variables, batch: Batch, least: float = 1e-5) -> float:
    """Returns the share of pre-activations in JumpReLU's window, after checking that it is enough.

    A threshold gets a gradient only from pre-activations in a window, of width `bandwidth`, around
    it. If the data's scale does not suit the bandwidth, no pre-activation lies in the window; then
    the gradient of every threshold is exactly zero and the sparsity penalty has no effect.

    Args:
      model: an Autoencoder with a JumpReLU bottleneck.
      variables: the variables that training starts from.
      batch: some examples.
      least: the share of pre-activations in the window that must be exceeded.

    Raises:
      UserError: if the share of pre-activations in the window is not above `least`.
    """
    share = float(jnp.mean(losses.window(model.bind(variables), model.apply(variables, batch))))
    if share <= least:
        raise UserError(
            f"JumpReLU's window of width {model.bottleneck.bandwidth} holds {share:.1e} of the "
            f"pre-activations, not more than {least:.0e}, so no threshold would ever move: scale "
            "the inputs (nets.Scale with initialise.standardised) or widen the bandwidth"
        )
    return share
