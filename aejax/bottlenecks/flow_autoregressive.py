"""Inverse autoregressive flows: each latent is moved and scaled by what the earlier ones are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from aejax.bottlenecks.flow import Base, FlowCode, flow
from aejax.checks import check, check_count, whole
from aejax.contracts import NOTHING, Given, VectorBottleneck
from aejax.types import Array, Key


class MaskedDense(nn.Module):
    """A linear map some of whose weights are held at zero.

    Attributes:
      degrees_in: i[inputs], how many latents each input may have seen.
      degrees_out: i[outputs], how many each output may see; a weight stands where in <= out.
    """

    degrees_in: Sequence[int]
    degrees_out: Sequence[int]

    @nn.compact
    def __call__(self, values: Array) -> Array:
        """f32[B, inputs] -> f32[B, outputs]."""
        mask = np.asarray(self.degrees_in)[:, None] <= np.asarray(self.degrees_out)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), mask.shape)
        bias = self.param("bias", nn.initializers.zeros_init(), mask.shape[1:])
        return values @ (kernel * mask) + bias[None]


class MADE(nn.Module):
    """Two numbers for each latent that see the latents before it (Germain et al. 2015).

    Attributes:
      widths: of the hidden layers, each of which also sees all features.
      activation: between the layers.
    """

    widths: Sequence[int]
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, z: Array, features: Array) -> tuple[Array, Array]:
        """f32[B, L], f32[B, D] -> two of f32[B, L]."""
        count = z.shape[-1]
        degrees, hidden = tuple(range(1, count + 1)), z
        for i, width in enumerate(self.widths):
            # Degrees 1 to L - 1 in turn: what has seen all latents could inform none.
            new = tuple(j % max(count - 1, 1) + 1 for j in range(width))
            hidden = MaskedDense(degrees, new, name=f"hidden_{i}")(hidden)
            hidden = hidden + nn.Dense(width, use_bias=False, name=f"features_{i}")(features)
            degrees, hidden = new, self.activation(hidden)
        before = tuple(range(count))
        output = MaskedDense(degrees, before + before, name="output")(hidden)
        # Features reach the outputs by themselves too: the first latent has no latent before it.
        output = output + nn.Dense(2 * count, use_bias=False, name="features")(features)
        first, second = jnp.split(output, 2, axis=-1)
        return first, second


class AutoregressiveStep(nn.Module):
    """s z + (1 - s) m, where m and s = sigmoid(. + 1) see earlier latents, then reversed.

    Kingma et al. 2016, equations 13 and 14; s starts near 1, as section 4 advises.
    """

    widths: Sequence[int]
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, z: Array, features: Array) -> tuple[Array, Array]:
        """f32[B, L], f32[B, D] -> z' f32[B, L] and log|det| f32[B]."""
        mean, gate = MADE(self.widths, self.activation, name="made")(z, features)
        gate = gate + 1.0
        scale = nn.sigmoid(gate)
        moved = scale * z + (1.0 - scale) * mean
        return moved[:, ::-1], jnp.sum(jax.nn.log_sigmoid(gate), axis=-1)


class InverseAutoregressive(VectorBottleneck):
    """A diagonal Gaussian through inverse autoregressive flows (IAF) that see the features.

    Attributes:
      latents: L.
      flows: how many steps; the order of the latents turns round after each.
      widths: of the hidden layers of each step's masked net.
      activation: between them.
    """

    flows: int = 4
    widths: Sequence[int] = (320,)
    activation: Callable[[Array], Array] = nn.elu

    @nn.compact
    def __call__(self, features: Array, key: Key | None, given: Given = NOTHING) -> FlowCode:
        """[B, ...] -> FlowCode; without a key it is where the base's location goes."""
        check_count(self, 0, "flows")
        whole_widths = all(whole(width) and width >= 1 for width in self.widths)
        check(self, "widths", lambda _: whole_widths, "whole numbers, 1 or more")
        steps = [
            AutoregressiveStep(self.widths, self.activation, name=f"flow_{i}")
            for i in range(self.flows)
        ]
        return flow(Base(self.latents, name="base"), steps, features, key)
