"""Inverse autoregressive flows: each latent is shifted and scaled as a function of earlier ones."""

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
    """A linear map whose weights are zero where an output must not depend on an input.

    Attributes:
      degrees_in: i[inputs]; input i depends on the first degrees_in[i] latents.
      degrees_out: i[outputs]; output j may depend on the first degrees_out[j] latents only, so the
        weight (i, j) is zero unless degrees_in[i] <= degrees_out[j].
    """

    degrees_in: Sequence[int]
    degrees_out: Sequence[int]

    @nn.compact
    def __call__(self, values: Array) -> Array:
        """Maps f32[B, inputs] to f32[B, outputs]."""
        mask = np.asarray(self.degrees_in)[:, None] <= np.asarray(self.degrees_out)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), mask.shape)
        bias = self.param("bias", nn.initializers.zeros_init(), mask.shape[1:])
        return values @ (kernel * mask) + bias[None]


class MADE(nn.Module):
    """A masked net with two outputs for each latent, which depend only on earlier latents.

    The masks are those of MADE (Germain et al. 2015).

    Attributes:
      widths: sizes of the hidden layers; the features are an additional input of each layer.
      activation: the activation after each hidden layer.
    """

    widths: Sequence[int]
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, z: Array, features: Array) -> tuple[Array, Array]:
        """Maps z f32[B, L] and features f32[B, D] to the two outputs, both f32[B, L]."""
        count = z.shape[-1]
        degrees, hidden = tuple(range(1, count + 1)), z
        for i, width in enumerate(self.widths):
            # Degrees cycle through 1 to L - 1, because no output may use a unit that depends on
            # all L latents.
            new = tuple(j % max(count - 1, 1) + 1 for j in range(width))
            hidden = MaskedDense(degrees, new, name=f"hidden_{i}")(hidden)
            hidden = hidden + nn.Dense(width, use_bias=False, name=f"features_{i}")(features)
            degrees, hidden = new, self.activation(hidden)
        before = tuple(range(count))
        output = MaskedDense(degrees, before + before, name="output")(hidden)
        # The features are also direct inputs of the outputs, because the outputs for the first
        # latent may depend on no hidden unit.
        output = output + nn.Dense(2 * count, use_bias=False, name="features")(features)
        first, second = jnp.split(output, 2, axis=-1)
        return first, second


class AutoregressiveStep(nn.Module):
    """One step of the flow: computes s z + (1 - s) m, then reverses the order of the latents.

    A masked net computes the shift m and the gate s = sigmoid(a + 1) of each latent from the
    features and the earlier latents only (Kingma et al. 2016, equations 13 and 14). Because of the
    offset 1, s is initially close to 1, as section 4 of the paper advises.
    """

    widths: Sequence[int]
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, z: Array, features: Array) -> tuple[Array, Array]:
        """Maps z f32[B, L] and features f32[B, D] to z' f32[B, L] and log|det| f32[B]."""
        mean, gate = MADE(self.widths, self.activation, name="made")(z, features)
        gate = gate + 1.0
        scale = nn.sigmoid(gate)
        moved = scale * z + (1.0 - scale) * mean
        return moved[:, ::-1], jnp.sum(jax.nn.log_sigmoid(gate), axis=-1)


class InverseAutoregressive(VectorBottleneck):
    """A diagonal Gaussian, transformed by inverse autoregressive flows (IAF) given the features.

    Attributes:
      latents: the number of latents L.
      flows: the number of steps; each reverses the order of the latents.
      widths: sizes of the hidden layers of each step's masked net.
      activation: the activation after each hidden layer.
    """

    flows: int = 4
    widths: Sequence[int] = (320,)
    activation: Callable[[Array], Array] = nn.elu

    @nn.compact
    def __call__(self, features: Array, key: Key | None, given: Given = NOTHING) -> FlowCode:
        """Draws the code of features [B, ...]; without a key the steps transform the base mean."""
        check_count(self, 0, "flows")
        whole_widths = all(whole(width) and width >= 1 for width in self.widths)
        check(self, "widths", lambda _: whole_widths, "whole numbers, 1 or more")
        steps = [
            AutoregressiveStep(self.widths, self.activation, name=f"flow_{i}")
            for i in range(self.flows)
        ]
        return flow(Base(self.latents, name="base"), steps, features, key)
