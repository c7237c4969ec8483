"""The prior of a conditional model: a Gaussian whose parameters a net computes from the context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.checks import check_rows
from aejax.contracts import DiagonalCode, Prior
from aejax.errors import UserError
from aejax.events import join_context
from aejax.normal import mean_and_log_std, normal_kl, normal_log_prob
from aejax.types import Array, Key


class Conditional(Prior):
    """The Gaussian p(z | context) = N(mean(context), std(context)^2) (Sohn et al. 2015).

    An MLP computes mean and std from the context. Before training the prior is the standard normal.

    Attributes:
      widths: sizes of the hidden layers; (): a linear map, which suffices for one-hot labels.
      activation: the activation after each hidden layer.
      net: a net that reads the context first, such as `nets.Spelling` if it is a text; None: the
        MLP reads the context itself.
    """

    widths: Sequence[int] = (128,)
    activation: Callable[[Array], Array] = nn.relu
    net: Any = None

    def log_prob(self, z: Array, context: Any = None, posterior: Any = None) -> Array:
        """Computes log p(z | context), f32[B], in nats, for z f32[B, L] and a context [B, ...].

        Raises:
          UserError: if there is no context, or its number of rows is not B.
          TypeError: if a leaf of the context holds integers.
        """
        mean, log_std = self._parameters(z.shape[0], z.shape[-1], context)
        return jnp.sum(normal_log_prob(z, mean, log_std), axis=-1)

    def sample(
        self, key: Key, n: int, shape: Sequence[int], context: Any = None, posterior: Any = None
    ) -> Array:
        """Draws f32[n, *shape], one latent for each of the n rows of the context.

        Raises:
          UserError: if there is no context, or its number of rows is not n.
        """
        mean, log_std = self._parameters(n, shape[-1], context)
        return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)

    def kl(self, code: Any, context: Any = None, posterior: Any = None) -> Array | None:
        """Computes KL(q || p) per dimension, f32[B, L] (Kingma and Welling 2014).

        It returns None if the code is not a diagonal Gaussian.
        """
        if not isinstance(code, DiagonalCode):
            return None
        mean, log_std = self._parameters(code.mean.shape[0], code.mean.shape[-1], context)
        return normal_kl(code.mean, code.log_std, mean, log_std)

    @nn.compact
    def _parameters(self, size: int, latents: int, context: Any) -> tuple[Array, Array]:
        """Computes the mean and log_std of p(z | context), both f32[B, L]."""
        if not jax.tree.leaves(context):
            raise UserError(
                f"the prior Conditional needs a context with {size} rows, one for each latent, but "
                "none is given: pass context, such as that of ae.data.context(values, like=train)"
            )
        check_rows(self, size, context)
        read = context if self.net is None else self.net(context)
        hidden = join_context(jnp.zeros((size, 0)), read)
        for i, width in enumerate(self.widths):
            hidden = self.activation(nn.Dense(width, name=f"hidden_{i}")(hidden))
        zeros = nn.initializers.zeros_init()
        output = nn.Dense(2 * latents, kernel_init=zeros, name="output")(hidden)
        return mean_and_log_std(output)
