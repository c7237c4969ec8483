"""The tokens that directions in the residual stream promote and suppress through the head."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.language.llama import Transformer
from aejax.types import Array, Variables

BATCH = 64  # the number of directions that pass through the head together


class Promoted(NamedTuple):
    """For each of m directions the tokens with the largest and with the smallest logits."""

    up: np.ndarray  # i32[m, count], the most promoted token first
    down: np.ndarray  # i32[m, count], the most suppressed token first


def promoted(
    model: Transformer, variables: Variables, rows: np.ndarray, count: int = 8
) -> Promoted:
    """Passes directions through the final norm and the head, as if they were the residual stream.

    This is the direct effect on the logits, also called the logit lens; what later blocks make of a
    direction is not in it.

    Args:
      model: the transformer.
      variables: its variables.
      rows: f[m, D], directions such as the rows of a decoder.
      count: the number of tokens for each direction and sign.

    Raises:
      UserError: if the directions have another width than the model.
    """
    rows = np.asarray(rows, np.float32)
    if rows.ndim != 2 or rows.shape[1] != model.config.size:
        raise UserError(
            f"the directions have shape {rows.shape}, but the model's residual stream has width "
            f"{model.config.size}: give [m, {model.config.size}]"
        )
    up, down = [], []
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        padded = np.concatenate([some, np.zeros((BATCH - len(some), rows.shape[1]), np.float32)])
        found = jax.device_get(_extremes(model, count, variables, jnp.asarray(padded)))
        up.append(found[0][: len(some)])
        down.append(found[1][: len(some)])
    return Promoted(np.concatenate(up), np.concatenate(down))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _extremes(
    model: Transformer, count: int, variables: Variables, rows: Array
) -> tuple[Array, Array]:
    logits: Any = model.apply(variables, rows, method=_logits)
    return jax.lax.top_k(logits, count)[1], jax.lax.top_k(-logits, count)[1]


def _logits(model: Transformer, rows: Array) -> Array:
    # The final norm divides by a row's scale. Rows of norm sqrt(D) make its epsilon negligible.
    length = jnp.linalg.norm(rows, axis=-1, keepdims=True)
    unit = rows / jnp.maximum(length, 1e-30) * rows.shape[-1] ** 0.5
    return model.head(model.norm(unit))
