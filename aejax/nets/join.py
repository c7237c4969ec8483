"""Combines nets: several that read one input, one that reads several, one of the context alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.errors import UserError
from aejax.events import flatten
from aejax.nets.call import call
from aejax.types import Array


class Branches(nn.Module):
    """Applies several nets to the same values, such as one for each level of a hierarchy.

    Attributes:
      nets: the nets.
    """

    nets: Sequence[nn.Module]

    def __call__(self, values: Array, context: Any = None) -> tuple[Array, ...]:
        """Returns the tuple of the nets' outputs for values [B, ...]."""
        return tuple(call(net, values, context) for net in self.nets)


class Joined(nn.Module):
    """Applies one net to several arrays, each of which first passes through a net of its own.

    Attributes:
      parts: one net for each array in the pytree (values, context), in that order; None: the array
        is passed on unchanged.
      net: the net that reads the flattened, concatenated outputs of the parts.
    """

    parts: Sequence[nn.Module | None]
    net: nn.Module

    def __call__(self, values: Any, context: Any = None) -> Array:
        """Applies the nets to the arrays [B, ...] of values and context.

        Raises:
          UserError: if the number of arrays is not the number of parts.
        """
        arrays = jax.tree.leaves((values, context))
        if len(arrays) != len(self.parts):
            raise UserError(
                f"Joined has {len(self.parts)} parts but was given {len(arrays)} arrays: give it a "
                "part, or None, for each array"
            )
        pairs = zip(self.parts, arrays, strict=True)
        made = [flatten(array if part is None else call(part, array)) for part, array in pairs]
        return call(self.net, jnp.concatenate(made, axis=-1))


class OfContext(nn.Module):
    """Applies a net to the context alone, as in a conditional model without latents.

    Attributes:
      net: the net that reads the context.
    """

    net: nn.Module

    def __call__(self, values: Any, context: Any) -> Any:
        """Returns the net's output for the context; the values are ignored."""
        return call(self.net, context)
