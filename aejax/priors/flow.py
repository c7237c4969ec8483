"""A normalising flow of affine couplings as a prior: as quick to draw from as to evaluate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from aejax.contracts import Prior
from aejax.errors import UserError
from aejax.events import join_context
from aejax.normal import normal_log_prob
from aejax.types import Array, Key

# Of a coupling's log-scale: e^2 a layer is enough, and more than that overflows through several.
LIMIT = 2.0


class Coupling(nn.Module):
    """Scales and moves half of the latents by what the other half is (Dinh et al. 2017, eq. 4, 5).

    Starts as the identity.

    Attributes:
      odd: which half is changed, the latents 1, 3, ... or 0, 2, ...
      widths: of the hidden layers.
      activation: between them.
    """

    odd: bool
    widths: Sequence[int]
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, values: Array, context: Any) -> tuple[Array, Array]:
        """Of values f32[B, L]: the shift and the log-scale, f32[B, L].

        Both are 0 for the half that they are read from, so they are the same before and after they
        are applied: that makes the coupling invertible.
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
    """A standard normal through affine couplings, RealNVP (Dinh et al. 2017).

    Chen et al. 2017 show that such a prior equals an inverse autoregressive posterior of the same
    size, and costs nothing when decoding. Each coupling also reads the context where there is one:
    then it is p(z | context). There is no closed form of the KL: sample the rate.

    Attributes:
      couplings: how many, in turn of either half of the latents.
      widths: of the hidden layers of each.
      activation: between them.
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
        """f32[B, L] -> f32[B], by the way back from z to the noise.

        Raises:
          TypeError: if a leaf of the context holds integers.
        """
        noise, log_det = self.noise(z, context)
        zeros = jnp.zeros_like(noise)
        return jnp.sum(normal_log_prob(noise, zeros, zeros), axis=-1) + log_det

    def noise(self, z: Array, context: Any = None) -> tuple[Array, Array]:
        """The standard normal noise that gives z: f32[B, L], with log |d noise / d z|, f32[B]."""
        values, log_det = z, jnp.zeros(z.shape[0])
        for layer in reversed(self.layers):
            shift, log_scale = layer(values, context)
            values = (values - shift) * jnp.exp(-log_scale)
            log_det = log_det - jnp.sum(log_scale, axis=-1)
        return values, log_det

    def latent(self, noise: Array, context: Any = None) -> Array:
        """The latent that some noise gives, f32[B, L]; another one under another context."""
        values = noise
        for layer in self.layers:
            shift, log_scale = layer(values, context)
            values = values * jnp.exp(log_scale) + shift
        return values

    def sample(
        self, key: Key, n: int, shape: Sequence[int], context: Any = None, posterior: Any = None
    ) -> Array:
        """Draws f32[n, *shape], one for each row of the context where there is one.

        Raises:
          UserError: if the context's rows are not n.
        """
        rows = {leaf.shape[0] for leaf in jax.tree.leaves(context)}
        if rows - {n}:
            raise UserError(
                f"the prior Flow was asked for {n} latents with a context of {max(rows)} rows: "
                f"pass context with {n} rows"
            )
        return self.latent(jax.random.normal(key, (n, *shape)), context)
