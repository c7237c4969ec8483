"""The gated sparse code, whose gate and magnitude share one projection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from aejax.bottlenecks.sparse.base import Sparse, project
from aejax.bottlenecks.sparse.code import SparseCode
from aejax.bottlenecks.sparse.plain import Architectures, Plain
from aejax.types import Array


class Gated(Sparse):
    """Computes H(x W + b_gate) * relu(exp(r_mag) * x W + b_mag) (Rajamanoharan et al. 2024, eq. 4).

    H is the Heaviside step function, and b_gate is the bias of the projection. The gradient of H is
    zero, so the terms `losses.gate_l1` and `losses.gate_error` are needed to train the gate.

    Attributes:
      latents: the number of latents m.
    """

    latents: int

    kind = "gated"
    saelens = Architectures("gated")
    vectors = ("b_gate", "b_mag", "r_mag")
    scales = ("b_gate", "b_mag")

    @nn.compact
    def activate(self, inputs: Array, step: Any, decoder: Any) -> SparseCode:
        """Computes the code of inputs f32[B, D], with a dense z and the gate's pre-activation."""
        zeros = nn.initializers.zeros_init()
        r_mag = self.param("r_mag", zeros, (self.latents,))
        b_mag = self.param("b_mag", zeros, (self.latents,))
        kernel, b_gate = self.encode(inputs.shape[-1])
        shared = project(inputs, kernel, jnp.zeros_like(b_gate), self.dtype)
        gate = shared + b_gate[None]
        magnitude = nn.relu(jnp.exp(r_mag)[None] * shared + b_mag[None])
        z = jnp.where(gate > 0, magnitude, 0.0)
        return SparseCode(z, jnp.sum(z > 0, axis=-1).astype(jnp.float32), gate)

    def fresh(self) -> dict[str, float]:
        """Returns the initial r_mag and b_mag; with these values the magnitude is relu(x W)."""
        return {"r_mag": 0.0, "b_mag": 0.0}

    def plain(self, params: Mapping[str, Any], memory: Any, norms: Array) -> dict[str, Any]:
        """Returns the fields of `Plain` (name -> value) that describe the encoder, without W_enc.

        They are the activation's name, "gated", and the vectors b_gate, b_mag and r_mag, f32[m].
        """
        own = {name: params[name] for name in ("b_mag", "r_mag")}
        return {"activation": self.kind, "b_gate": params["encode"]["bias"], **own}

    @classmethod
    def from_plain(cls, plain: Plain) -> tuple[Sparse, dict[str, Any]]:
        """Returns a bottleneck and its parameters, which compute the codes of the plain weights."""
        own = {name: plain.needed(name) for name in ("b_mag", "r_mag")}
        module = cls(plain.latents, subtract_bias=plain.apply_b_dec_to_input)
        return module, {**plain.projection("b_gate"), **own}

    @classmethod
    def shift_plain(cls, plain: Plain, shift: np.ndarray) -> dict[str, np.ndarray]:
        """Returns b_gate + shift and b_mag + exp(r_mag) * shift, see `Sparse.shift_plain`."""
        gate, bias, scale = (np.asarray(plain.needed(name), np.float64) for name in cls.vectors)
        return {"b_gate": gate + shift, "b_mag": bias + np.exp(scale) * shift}

    @classmethod
    def apply_plain(cls, plain: Plain, pre: Array) -> Array:
        """Computes relu(exp(r_mag) pre + b_mag) where pre + b_gate is above 0, else 0."""
        gate, bias, scale = (plain.needed(name)[None] for name in cls.vectors)
        return jnp.where(pre + gate > 0, nn.relu(jnp.exp(scale) * pre + bias), 0.0)

    def penalty(self, code: SparseCode, norms: Array | None = None) -> Array:
        """Computes the L1 norm of relu(gate), weighted by the atoms' norms, f32[B]."""
        assert code.pre is not None
        gate = nn.relu(code.pre)
        return jnp.sum(gate if norms is None else gate * norms[None], axis=-1)
