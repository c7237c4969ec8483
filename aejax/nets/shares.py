"""A decoder of counts whose means add up to the size of the example, which the context holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.errors import UserError
from aejax.nets.call import call
from aejax.types import Array

SIZE = "log_size"


class Shares(nn.Module):
    """Adds the logarithm of an example's size to the logarithms of the shares that a net decodes.

    This is scVI's decoder (Lopez et al. 2018): mean = size * softmax(net(z, covariates)). The
    context is a mapping with the entry "log_size", f32[B, 1], such as the logarithm of the sum of
    the example's counts. All other entries, such as one-hot batches, are covariates, which the net
    receives as its context.

    Counts are fitted far better with a high learning rate that falls to 0, such as Adam with 1e-2
    and `optax.cosine_decay_schedule`, and with `nets.LayerNormed` as the net's activation; in the
    experiment `counts` both together gain 4 nats in each cell.

    Attributes:
      net: maps (z, covariates), or z alone, to f32[B, D], the logits of the shares. For a
        likelihood with further parameters it maps to f32[B, D, n], whose first entries are the
        logits; the others are passed on unchanged.
    """

    net: nn.Module

    @nn.compact
    def __call__(self, values: Any, context: Any = None) -> Array:
        """Maps z to the logarithms of the means, f32[B, D], or f32[B, D, n] with these first.

        Raises:
          UserError: if the context has no entry "log_size".
        """
        if not isinstance(context, Mapping) or SIZE not in context:
            raise UserError(
                f"nets.Shares reads the logarithm of each example's size from the context, which "
                f"has no entry {SIZE!r}: give batches the context {{{SIZE!r}: f32[B, 1], ...}}"
            )
        rest = {name: value for name, value in context.items() if name != SIZE}
        output = call(self.net, values, rest or None)
        size = context[SIZE].reshape((output.shape[0], 1))
        if output.ndim == 2:
            return size + jax.nn.log_softmax(output)
        means = size + jax.nn.log_softmax(output[..., 0])
        return jnp.concatenate([means[..., None], output[..., 1:]], axis=-1)
