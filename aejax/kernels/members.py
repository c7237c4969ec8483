"""What the members of a sweep decide together, so that a branch stays a branch under vmap."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from aejax.types import Array


@custom_vmap
def any_member(flag: Array) -> Array:
    """True where it is true of any member mapped over, and then the same for all, bool[].

    A `lax.cond` on a mapped flag becomes a select that computes both branches; on this one it stays
    a branch, which all members take as soon as one of them needs it.

    Args:
      flag: bool[], of one member.
    """
    return flag


@any_member.def_vmap
def _any_member(size: int, batched: Any, flag: Array) -> tuple[Array, bool]:
    # Called again under an outer map, so that members of members decide together too.
    return any_member(jnp.any(flag, axis=0)), False
