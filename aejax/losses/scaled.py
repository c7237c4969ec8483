"""How badly a dictionary explains the target, in the dictionary's own units.

Where the decoder has a `Scale`, these are units in which the data has mean square 1, so that one
set of coefficients serves data of any size; where it has none, they are the target's.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from aejax.types import Array, Batch, Forward, LinearDecoder


def residual(model: Any, forward: Forward) -> Array:
    """target - mean in the dictionary's own units, with the mask, f32[B, D]."""
    batch = forward.batch
    return _measure(model, batch.target - model.mean(forward.prediction), batch.mask)


def masked(model: Any, values: Array, batch: Batch) -> Array:
    """Values f32[B, D] in the dictionary's own units, with the mask as `residual` has it.

    A mask is of raw values, which whitening mixes: so they are brought to raw units and back.
    """
    if batch.mask is None:
        return values
    decoder = model.decoder
    return _measure(model, decoder.finish(values) - decoder.finish(0.0 * values), batch.mask)


def scaled_error(model: Any, forward: Forward) -> Array:
    """||target - mean||^2 in the dictionary's own units, f32[B], summed over the event."""
    return jnp.sum(jnp.square(residual(model, forward)), axis=-1)


def normalised_error(model: Any, forward: Forward) -> Array:
    """||y - y_hat||^2 / ||y||^2 of each example, f32[B] (Gao et al. 2024, their released loss).

    In the dictionary's own units, so that y is centred where the decoder has a `Scale`: examples of
    any norm weigh the same.
    """
    target = forward.batch.target
    if isinstance(model.decoder, LinearDecoder):
        nothing = jnp.zeros_like(target, jnp.float32).reshape((target.shape[0], -1))
        target = target - model.decoder.finish(nothing)
    norms = jnp.sum(jnp.square(_measure(model, target, forward.batch.mask)), axis=-1)
    return scaled_error(model, forward) / jnp.maximum(norms, 1e-12)


def unexplained(model: Any, forward: Forward) -> Array:
    """The fraction of variance unexplained, f32[B]; its mean over B is that of the batch.

    sum ||y - y_hat||^2 / sum ||y - mean_B y||^2, each example's share of the sum times B: a batch
    statistic, so that data of any scale weighs the same.
    """
    target, mask = forward.batch.target, forward.batch.mask
    centred = target - jnp.mean(target, axis=0, keepdims=True)
    total = jnp.sum(jnp.square(_measure(model, centred, mask)))
    errors = scaled_error(model, forward)
    return errors * errors.shape[0] / jnp.maximum(total, 1e-12)


def _measure(model: Any, difference: Array, mask: Array | None) -> Array:
    if mask is not None:
        # The root, so that its square weighs as the mask does.
        difference = difference * jnp.sqrt(jnp.broadcast_to(mask, difference.shape))
    if isinstance(model.decoder, LinearDecoder):
        return model.decoder.measure(difference)
    return difference.reshape((difference.shape[0], -1))
