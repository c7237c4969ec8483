"""Gradient transformations for dictionaries, which optax does not have."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from aejax.variables import ATOMS, ending

DICTIONARY = ending(ATOMS)


def unit_rows(pattern: str = DICTIONARY) -> optax.GradientTransformation:
    """Returns an optax transformation that keeps the rows of chosen parameters at norm 1.

    Put it last in a chain.
    Without this a dictionary can make an L1 penalty small by large atoms and small activations
    (Bricken et al. 2023).

    Args:
      pattern: regular expression searched in a parameter's path, such as "decoder/atoms".
    """

    def change(update: jax.Array, param: jax.Array) -> jax.Array:
        moved = param + update
        norm = jnp.linalg.norm(moved, axis=-1, keepdims=True)
        return moved / jnp.maximum(norm, 1e-12) - param

    return _of_rows(pattern, change)


def tangent_rows(pattern: str = DICTIONARY) -> optax.GradientTransformation:
    """Returns an optax transformation that removes from each row's gradient the part along the row.

    Put it first in a chain. With `unit_rows` that part has no effect on the row, but it would
    enlarge Adam's second moments. The code of OpenAI and of Marks et al. removes it too: a row w
    with the gradient g gets g - <g, w> w.

    Args:
      pattern: regular expression searched in a parameter's path, such as "decoder/atoms".
    """

    def change(update: jax.Array, param: jax.Array) -> jax.Array:
        square = jnp.sum(jnp.square(param), axis=-1, keepdims=True)
        along = jnp.sum(update * param, axis=-1, keepdims=True) / jnp.maximum(square, 1e-24)
        return update - along * param

    return _of_rows(pattern, change)


def _of_rows(
    pattern: str, change: Callable[[jax.Array, jax.Array], jax.Array]
) -> optax.GradientTransformation:
    """Returns an optax transformation that applies `change` to the updates of some parameters.

    Args:
      pattern: regular expression searched in a parameter's path.
      change: a function (update, parameter) -> new update.
    """

    def init(params: Any) -> optax.EmptyState:
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if params is None:
            raise ValueError(
                "unit_rows and tangent_rows need the parameters: call "
                "update(updates, state, params)"
            )

        def one(path: Any, update: jax.Array, param: jax.Array) -> jax.Array:
            named = re.search(pattern, jax.tree_util.keystr(path, simple=True, separator="/"))
            return change(update, param) if named else update

        return jax.tree_util.tree_map_with_path(one, updates, params), state

    return optax.GradientTransformation(init, update)
