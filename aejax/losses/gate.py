"""The two terms that train the gate of a Gated bottleneck, whose step function has no gradient."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from aejax.errors import UserError
from aejax.losses.scaled import residual
from aejax.losses.sparsity import dictionary, norms
from aejax.types import Array, Forward, Term


def gate_l1(weighted: bool = False) -> Term:
    """Returns the term sum_i relu(gate_i), f32[B] (Rajamanoharan et al. 2024, equation 8).

    Args:
      weighted: whether each summand is multiplied by the norm of its atom, as in SAELens; choose
        True if the norms of the atoms are not fixed to 1.
    """

    def gate_l1(model: Any, forward: Forward) -> Array:
        gate = _gate(forward)
        return jnp.sum(gate * norms(model)[None] if weighted else gate, axis=-1)

    return gate_l1


def gate_error(detach: bool = True) -> Term:
    """Returns the term ||target - (relu(gate) atoms + bias)||^2, f32[B], in scaled units.

    In scaled units the data has mean square 1, if the decoder has a `Scale`. The output of a skip
    connection, if the decoder has one, is added to the prediction, as the bias is.

    Args:
      detach: whether to stop the gradient to the decoder (Rajamanoharan et al. 2024, equation 8).
        SAELens does not stop it, so there this term trains the decoder too.
    """

    def gate_error(model: Any, forward: Forward) -> Array:
        gate, decoder = _gate(forward), dictionary(model)
        atoms = decoder.weights(gate.shape[-1]).atoms
        offset = decoder.offset(gate.shape[-1], forward.batch.context)
        if detach:
            atoms, offset = jax.lax.stop_gradient((atoms, offset))
        prediction = decoder.finish(gate @ atoms + offset, forward.batch.context)
        error = residual(model, forward._replace(prediction=prediction))
        return jnp.sum(jnp.square(error), axis=-1)

    return gate_error


def _gate(forward: Forward) -> Array:
    """Returns relu of the gate's pre-activations, f32[B, m].

    Raises:
      UserError: if the code has no gate.
    """
    if forward.code.pre is None:
        raise UserError("this term trains a gate, but the code has none: use the bottleneck Gated")
    return jax.nn.relu(forward.code.pre)
