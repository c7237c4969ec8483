"""Extracts single batches from a `Source`, inside a compiled loop over training steps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from aejax.types import Array, Batch, Source


def gathered(source: Source, i: Array | int, step: Array) -> Batch:
    """Extracts batch i of a source and prepares it for the training step `step`.

    Args:
      source: the source, which holds T batches.
      i: i32[], the index of the batch, from 0 to T - 1.
      step: i32[], the training step, which determines the random draws of the preparation.

    Returns:
      A Batch with leaves [B, ...], or [S, B, ...] if each of S models has its own batches.
    """

    def one(arrays: Any, rows: Array | None, key: Array) -> Batch:
        if rows is None:
            taken = jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, i, 0, False), arrays)
        else:
            chosen = jax.lax.dynamic_index_in_dim(rows, i, 0, False)
            taken = jax.tree.map(lambda a: jnp.take(a, chosen, axis=0), arrays)
        return source.prepare(jax.random.fold_in(key, step), taken)

    if source.key.ndim == 0:
        return one(source.arrays, source.rows, source.key)
    axes = (0, None, 0) if source.rows is None else (None, 0, 0)
    return jax.vmap(one, in_axes=axes)(source.arrays, source.rows, source.key)
