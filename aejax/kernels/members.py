"""A condition shared by all vmapped models, so that `lax.cond` stays a branch under vmap."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from aejax.types import Array


@custom_vmap
def any_member(flag: Array) -> Array:
    """Returns whether the flag is True for any of the models that vmap maps over, bool[].

    Under vmap a `lax.cond` on a batched flag becomes a select that computes both branches. The
    result here is not batched, so `lax.cond` stays a branch, taken by all models if one needs it.

    Args:
      flag: the flag of one model, bool[].
    """
    return flag


@any_member.def_vmap
def _any_member(size: int, batched: Any, flag: Array) -> tuple[Array, bool]:
    # The recursive call reduces over the axis of an outer vmap too.
    return any_member(jnp.any(flag, axis=0)), False
