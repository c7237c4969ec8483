"""A normalising flow of affine couplings as a prior; sampling takes as long as evaluating log p."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from aejax.checks import check_rows
from aejax.contracts import Prior
from aejax.events import join_context
from aejax.normal import normal_log_prob
from aejax.types import Array, Key

# The largest log-scale of a coupling. A factor of e^2 per coupling is enough, and the product of
# larger factors over several couplings could overflow.
LIMIT = 2.0


class Coupling(nn.Module):
    """Computes a shift and a scale for half of the latents from the other half.

    See Dinh et al. 2017, equations 4 and 5. Before training the coupling is the identity.

    Attributes:
      odd: True if the latents 1, 3, ... are changed; False if the latents 0, 2, ... are.
      widths: sizes of the hidden layers.
      activation: the activation after each hidden layer.
    """

    odd: bool
    widths: Sequence[int]
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, values: Array, context: Any) -> tuple[Array, Array]:
        """Computes the shift and the log-scale of values f32[B, L], both f32[B, L].

        Both are 0 for the half of the latents that the coupling does not change, and both depend
        only on this half. They can therefore be computed from the coupling's output as well, which
        makes the coupling invertible.
        """
        count = values.shape[-1]
        changed = jnp.asarray(np.arange(count) % 2 == int(self.odd), values.dtype)[None]
        hidden = join_context(values * (1.0 - changed), context)
        for i, width in enumerate(self.widths):
            hidden = self.activation(nn.Dense(width, name=f"hidden_{i}")(hidden))
        zeros = nn.initializers.zeros_init()
        output = nn.Dense(2 * count, kernel_init=zeros, name="output")(hidden)
        shift, raw = jnp.split(output, 2, axis=-1)
        return changed * shift, changed * LIMIT * jnp.tanh(raw)


class Flow(Prior):
    """A standard normal transformed by affine couplings, known as RealNVP (Dinh et al. 2017).

    If there is a context, it is an input of each coupling, and the prior is p(z | context). The KL
    has no closed form, so use elbo(rate=losses.rate()). Instead of the prior, the posterior can be
    a flow; for autoregressive flows, Chen et al. 2017 show that both choices are equivalent.

    Attributes:
      couplings: the number of couplings, which alternate between the two halves of the latents.
      widths: sizes of each coupling's hidden layers.
      activation: the activation after each hidden layer.
    """

    couplings: int = 6
    widths: Sequence[int] = (128, 128)
    activation: Callable[[Array], Array] = nn.relu

    def setup(self) -> None:
        """Declares the couplings."""
        self.layers = [
            Coupling(i % 2 == 1, self.widths, self.activation, name=f"coupling_{i}")
            for i in range(self.couplings)
        ]

    def log_prob(self, z: Array, context: Any = None, posterior: Any = None) -> Array:
        """Computes log p(z), f32[B], in nats, for z f32[B, L], by inverting the flow.

        Raises:
          TypeError: if a leaf of the context holds integers.
        """
        noise, log_det = self.noise(z, context)
        zeros = jnp.zeros_like(noise)
        return jnp.sum(normal_log_prob(noise, zeros, zeros), axis=-1) + log_det

    def noise(self, z: Array, context: Any = None) -> tuple[Array, Array]:
        """Inverts the flow: returns the noise f32[B, L] of z, and log |d noise / d z|, f32[B]."""
        values, log_det = z, jnp.zeros(z.shape[0])
        for layer in reversed(self.layers):
            shift, log_scale = layer(values, context)
            values = (values - shift) * jnp.exp(-log_scale)
            log_det = log_det - jnp.sum(log_scale, axis=-1)
        return values, log_det

    def latent(self, noise: Array, context: Any = None) -> Array:
        """Maps noise f32[B, L] to latents f32[B, L], given the context if there is one."""
        values = noise
        for layer in self.layers:
            shift, log_scale = layer(values, context)
            values = values * jnp.exp(log_scale) + shift
        return values

    def sample(
        self, key: Key, n: int, shape: Sequence[int], context: Any = None, posterior: Any = None
    ) -> Array:
        """Draws f32[n, *shape]; if there is a context, one latent for each of its n rows.

        Raises:
          UserError: if there is a context and its number of rows is not n.
        """
        check_rows(self, n, context)
        return self.latent(jax.random.normal(key, (n, *shape)), context)
