"""Nets side by side: several that read the same, and one that reads what several make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.errors import UserError
from aejax.events import flatten
from aejax.types import Array


class Branches(nn.Module):
    """The features of several nets that read the same values: those of a hierarchy's levels."""

    nets: Sequence[nn.Module]

    def __call__(self, values: Array, context: Any = None) -> tuple[Array, ...]:
        """[B, ...] -> a tuple of what each net gives."""
        return tuple(net(values, context) for net in self.nets)


class Joined(nn.Module):
    """A net of several values, each of which goes through a net of its own first.

    Attributes:
      parts: one for each array of (values, context), in that order; None hands it on as it is.
      net: reads what the parts give, one after the other.
    """

    parts: Sequence[nn.Module | None]
    net: nn.Module

    def __call__(self, values: Any, context: Any = None) -> Array:
        """Values and a context of as many arrays [B, ...] as parts -> what the net gives.

        Raises:
          UserError: if there are more or fewer.
        """
        arrays = jax.tree.leaves((values, context))
        if len(arrays) != len(self.parts):
            raise UserError(
                f"Joined has {len(self.parts)} parts and was given {len(arrays)} arrays: give it a "
                "part, or None, for each"
            )
        pairs = zip(self.parts, arrays, strict=True)
        made = [flatten(array if part is None else part(array)) for part, array in pairs]
        return self.net(jnp.concatenate(made, axis=-1))
