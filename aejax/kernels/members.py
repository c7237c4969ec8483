"""A decision shared by all members of a sweep, so that `lax.cond` stays a branch under vmap."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from aejax.types import Array


@custom_vmap
def any_member(flag: Array) -> Array:
    """Computes any() over vmapped members, unbatched, bool[].

    Under vmap a `lax.cond` on a batched flag becomes a select that computes both branches. On this
    result it stays a branch, which all members take if any of them needs it.

    Args:
      flag: the flag of one member, bool[].
    """
    return flag


@any_member.def_vmap
def _any_member(size: int, batched: Any, flag: Array) -> tuple[Array, bool]:
    # The recursive call reduces over the members of an outer vmap too.
    return any_member(jnp.any(flag, axis=0)), False
