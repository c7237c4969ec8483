"""An encoder of several views of each example, some of which may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.errors import UserError
from aejax.nets.call import call
from aejax.types import Array


class Views(nn.Module):
    """Applies one encoder to each view of x; a view that holds NaN is missing.

    The views are consecutive parts of x along one axis:

        Views({"left": MLP((64,)), "right": MLP((64,))}, {"left": 14, "right": 14}, axis=2)

    The bottlenecks `ProductOfExperts` and `MixtureOfExperts` read the result. Missing values of the
    target, which are NaN too, are left out of the likelihood (`aejax.events.marked`).

    Attributes:
      nets: name -> the encoder of a view.
      sizes: name -> the size of a view along the axis, in the order of the views in x.
      axis: the axis of x [B, *event] along which the views lie; 1 is the first axis of an event.
    """

    nets: Mapping[str, nn.Module]
    sizes: Mapping[str, int]
    axis: int = 1

    def __post_init__(self) -> None:
        """Raises UserError unless every view has one net and one size."""
        if set(self.nets) != set(self.sizes) or not self.sizes:
            raise UserError(
                f"Views has nets for {sorted(self.nets)} and sizes for {sorted(self.sizes)}: give "
                "each view a net and a size"
            )
        super().__post_init__()

    def __call__(self, values: Array, context: Any = None) -> dict[str, tuple[Any, Array]]:
        """Returns name -> (features [B, ...], 1 where the view is there and 0 where not, f32[B]).

        A missing view is encoded as zeros; its features must not be used.

        Raises:
          UserError: if the sizes do not add up to the length of the axis.
        """
        total = sum(self.sizes.values())
        if values.ndim <= self.axis or values.shape[self.axis] != total:
            raise UserError(
                f"the views have the sizes {dict(self.sizes)} along axis {self.axis}, but x has "
                f"shape {values.shape}: give sizes that add up to the length of that axis"
            )
        found, start = {}, 0
        for name, size in self.sizes.items():
            view = jax.lax.slice_in_dim(values, start, start + size, axis=self.axis)
            start += size
            missing = jnp.any(jnp.isnan(view), axis=tuple(range(1, view.ndim)), keepdims=True)
            filled = jnp.where(jnp.broadcast_to(missing, view.shape), 0.0, view)
            present = 1.0 - missing.reshape(-1).astype(jnp.float32)
            found[name] = (call(self.nets[name], filled, context), present)
        return found
