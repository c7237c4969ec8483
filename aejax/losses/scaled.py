"""Reconstruction errors of a dictionary in the decoder's scaled units.

If the decoder has a `Scale`, scaled units are those in which the data has mean square 1, so that
the same loss coefficients suit data of any scale. Otherwise they are the units of the target.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from aejax.types import Array, Batch, Forward, LinearDecoder


def residual(model: Any, forward: Forward) -> Array:
    """Computes target - reconstruction, f32[B, D], masked and in the decoder's scaled units."""
    batch = forward.batch
    return _measure(model, batch.target - model.mean(forward.prediction), batch)


def masked(model: Any, values: Array, batch: Batch) -> Array:
    """Applies the batch's mask to values f32[B, D] in the decoder's scaled units.

    The mask has an entry for each element of the target in its own units, but a whitened value is a
    mixture of these elements. The values are therefore converted to these units, masked and
    converted back.
    """
    if batch.mask is None:
        return values
    decoder, context = model.decoder, batch.context
    raw = decoder.finish(values, context) - decoder.finish(0.0 * values, context)
    return _measure(model, raw, batch)


def scaled_error(model: Any, forward: Forward) -> Array:
    """Computes ||target - reconstruction||^2, f32[B], in the decoder's scaled units."""
    return jnp.sum(jnp.square(residual(model, forward)), axis=-1)


def normalised_error(model: Any, forward: Forward) -> Array:
    """Computes ||y - y_hat||^2 / ||y||^2, f32[B], as the code of Gao et al. 2024 does.

    Values are in the decoder's scaled units, so y is centred if the decoder has a `Scale`. Every
    example has the same weight, whatever its norm.
    """
    batch = forward.batch
    target = batch.target
    if isinstance(model.decoder, LinearDecoder):
        nothing = jnp.zeros_like(target, jnp.float32).reshape((target.shape[0], -1))
        target = target - model.decoder.finish(nothing, batch.context)
    norms = jnp.sum(jnp.square(_measure(model, target, batch)), axis=-1)
    return scaled_error(model, forward) / jnp.maximum(norms, 1e-12)


def unexplained(model: Any, forward: Forward) -> Array:
    """Computes the fraction of variance unexplained (FVU), f32[B], as a mean over the batch.

    An example's value is B ||y - y_hat||^2 / sum_B ||y - mean_B y||^2, which does not depend on the
    scale of the data. The mean of these values is the FVU of the batch.
    """
    target = forward.batch.target
    centred = target - jnp.mean(target, axis=0, keepdims=True)
    total = jnp.sum(jnp.square(_measure(model, centred, forward.batch)))
    errors = scaled_error(model, forward)
    return errors * errors.shape[0] / jnp.maximum(total, 1e-12)


def _measure(model: Any, difference: Array, batch: Batch) -> Array:
    """Masks a difference in the target's units and converts it to scaled units, f32[B, D]."""
    if batch.mask is not None:
        # The difference is multiplied by the square root of the mask, because the mask is a weight
        # of the squared error.
        difference = difference * jnp.sqrt(jnp.broadcast_to(batch.mask, difference.shape))
    if isinstance(model.decoder, LinearDecoder):
        return model.decoder.measure(difference, batch.context)
    return difference.reshape((difference.shape[0], -1))
