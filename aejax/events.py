"""Sums over event axes: every axis but the leading one of the batch."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.types import Array, Batch


def sum_events(values: Array, mask: Array | None = None) -> Array:
    """Sums over all axes but the first, after multiplying the mask in.

    Args:
      values: f32[B, *event].
      mask: anything that broadcasts to `values`, or None.

    Returns:
      f32[B].
    """
    if mask is not None:
        values = values * jnp.broadcast_to(mask, values.shape)
    return jnp.sum(values, axis=tuple(range(1, values.ndim)))


def without_missing(batch: Batch) -> Batch:
    """The batch with 0 for each target that is NaN where the mask is 0: a missing value.

    NaN times 0 is NaN, in the sum as in its gradient. Any other target stays as it is.
    """
    target, mask = batch.target, batch.mask
    if mask is None or not jnp.issubdtype(target.dtype, jnp.floating):
        return batch
    missing = jnp.isnan(target) & (jnp.broadcast_to(mask, target.shape) == 0)
    return batch._replace(target=jnp.where(missing, 0.0, target))


def is_dense(z: Any) -> bool:
    """Whether a z is an array; otherwise it holds few latents and says itself what it is.

    Such a z has `dense() -> f32[B, m]`, `latents`, `combine(atoms) -> f32[B, D]`, and
    `between(low, high)`, as the `Rows` of `aejax.bottlenecks.sparse` do.
    """
    return isinstance(z, jax.Array | np.ndarray)


def dense(z: Any) -> Array:
    """A z as an array f32[B, m], whatever its form."""
    return z if is_dense(z) else z.dense()


def flatten(values: Any) -> Array:
    """[B, *event] -> [B, size of the event]; a sparse latent's rows as the dense latent.

    Raises:
      UserError: for a tuple, as the levels of a hierarchy are.
    """
    if isinstance(values, tuple):
        raise UserError(
            f"a net of one array was given {len(values)}, several values side by side as a "
            "hierarchy's levels are: put nets.Joined around this net"
        )
    values = dense(values)
    return values.reshape((values.shape[0], -1))


def joined(latent: Any) -> Array:
    """A latent as one vector, the levels of a hierarchy side by side from the top down: f32[B, L].

    Args:
      latent: [B, *shape], or a tuple of such.
    """
    return jnp.concatenate([flatten(leaf) for leaf in jax.tree.leaves(latent)], axis=-1)


def join_context(values: Array, context: Any) -> Array:
    """Appends the leaves of a context to flattened values: [B, D] -> [B, D + size of the context].

    Raises:
      TypeError: if a leaf holds integers: an index is no magnitude, encode it as one-hot first.
    """
    leaves = jax.tree.leaves(context)
    for leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"a context leaf has dtype {leaf.dtype}, which a dense net would read as a "
                "magnitude: pass jax.nn.one_hot(labels, classes) instead"
            )
    if not leaves:
        return values
    return jnp.concatenate([values, *(flatten(a).astype(values.dtype) for a in leaves)], axis=-1)
