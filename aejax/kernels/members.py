"""A condition that is the same for all models that vmap maps over.

With such a condition `lax.cond` runs only one of its branches, also under vmap.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from aejax.types import Array


@custom_vmap
def any_member(flag: Array) -> Array:
    """Returns whether the flag is True for any of the models that vmap maps over, bool[].

    Under vmap, a `lax.cond` whose condition is batched computes both branches and selects one of
    the results. The result of this function is not batched, so only one branch is run: all models
    take the branch that one of them needs.

    Args:
      flag: the flag of one model, bool[].
    """
    return flag


@any_member.def_vmap
def _any_member(size: int, batched: Any, flag: Array) -> tuple[Array, bool]:
    # The recursive call reduces over the axis of an outer vmap too.
    return any_member(jnp.any(flag, axis=0)), False
