"""Transformations of updates that optax does not have."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax


def unit_rows(pattern: str = r"decoder/atoms$") -> optax.GradientTransformation:
    """Keeps the rows of chosen parameters at norm 1; to be the last transformation of a chain.

    Without it a dictionary makes an L1 penalty small by large atoms and small activations
    (Bricken et al. 2023).

    Args:
      pattern: regular expression searched in a parameter's path, such as "decoder/atoms".
    """

    def init(params: Any) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("unit_rows needs the parameters: call update(updates, state, params)")

        def project(path: Any, change: jax.Array, param: jax.Array) -> jax.Array:
            if not re.search(pattern, jax.tree_util.keystr(path, simple=True, separator="/")):
                return change
            moved = param + change
            norm = jnp.linalg.norm(moved, axis=-1, keepdims=True)
            return moved / jnp.maximum(norm, 1e-12) - param

        return jax.tree_util.tree_map_with_path(project, updates, params), state

    return optax.GradientTransformation(init, update)
