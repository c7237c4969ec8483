"""The two terms that teach a gated code's gate, which its step function alone cannot."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from aejax.errors import UserError
from aejax.losses.scaled import residual
from aejax.losses.sparsity import dictionary, norms
from aejax.types import Array, Forward, Term


def gate_l1(weighted: bool = False) -> Term:
    """sum relu(gate_i), f32[B] (Rajamanoharan et al. 2024, equation 8).

    Args:
      weighted: times the atoms' norms, as SAELens has it; for atoms that are not of norm 1.
    """

    def gate_l1(model: Any, forward: Forward) -> Array:
        gate = _gate(forward)
        return jnp.sum(gate * norms(model)[None] if weighted else gate, axis=-1)

    return gate_l1


def gate_error(detach: bool = True) -> Term:
    """||target - (relu(gate) atoms + bias)||^2 in the dictionary's own units, f32[B].

    A skip connection belongs to the prediction, as the bias does.

    Args:
      detach: the decoder is a constant to this term (Rajamanoharan et al. 2024, equation 8);
        SAELens trains it by this term too.
    """

    def gate_error(model: Any, forward: Forward) -> Array:
        gate, decoder = _gate(forward), dictionary(model)
        atoms = decoder.weights(gate.shape[-1]).atoms
        offset = decoder.offset(gate.shape[-1], forward.batch.context)
        if detach:
            atoms, offset = jax.lax.stop_gradient((atoms, offset))
        prediction = decoder.finish(gate @ atoms + offset)
        error = residual(model, forward._replace(prediction=prediction))
        return jnp.sum(jnp.square(error), axis=-1)

    return gate_error


def _gate(forward: Forward) -> Array:
    """relu(gate), f32[B, m]; raises UserError where the code has none."""
    if forward.code.pre is None:
        raise UserError("this term teaches a gate, and the code has none: use the bottleneck Gated")
    return jax.nn.relu(forward.code.pre)
