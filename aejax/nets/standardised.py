"""A net whose input is standardised by fixed statistics, which are fields of the model."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from aejax.events import spread
from aejax.nets.call import call
from aejax.types import Array


class Standardised(nn.Module):
    """Applies a net to (values - mean) / std, and reads missing values, which are NaN, as the mean.

    The statistics are fields of the module, so they are stored in config.json with the model:

        encoder = Standardised(MLP((64,)), *ae.data.statistics(train))

    Attributes:
      net: the net that is applied to the standardised values.
      mean: the mean of each element, as nested tuples in the shape of one example, or one number.
      std: the standard deviation of each element, above 0, in the same form.
    """

    net: nn.Module
    mean: Any
    std: Any

    def __call__(self, values: Array, context: Any = None) -> Any:
        """Applies the net to standardised values [B, *event]."""
        mean = spread(jnp.asarray(self.mean), values)
        std = spread(jnp.asarray(self.std), values)
        apart = jnp.where(jnp.isnan(values), 0.0, values - mean)
        return call(self.net, apart / std, context)
