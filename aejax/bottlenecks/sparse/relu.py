"""ReLU bottlenecks; a penalty on the activations makes their codes sparse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from aejax.bottlenecks.sparse.base import Sparse, atom_norms
from aejax.bottlenecks.sparse.code import SparseCode
from aejax.bottlenecks.sparse.plain import Architectures, Plain
from aejax.checks import check, check_positive
from aejax.types import Array, LinearDecoder


class ReLU(Sparse):
    """Computes z = relu(x W + b); train it with an L1 penalty (Bricken et al. 2023).

    Attributes:
      latents: the number of latents m, usually many times the size of x.
    """

    latents: int

    kind = "relu"
    damping = 1.0
    scales = ("b_enc",)
    saelens = Architectures("standard", "transcoder", "skip_transcoder")

    def activate(self, inputs: Array, step: Any, decoder: Any) -> SparseCode:
        """Computes the code of inputs f32[B, D], with a dense z f32[B, m]."""
        z = nn.relu(self.project(inputs))
        return SparseCode(z, jnp.sum(z > 0, axis=-1).astype(jnp.float32))

    @classmethod
    def apply_plain(cls, plain: Plain, pre: Array) -> Array:
        """Computes relu(pre + b_enc)."""
        return nn.relu(pre + plain.needed("b_enc")[None])

    def penalty(self, code: SparseCode, norms: Array | None = None) -> Array:
        """Computes the L1 norm of z, weighted by the atoms' norms, f32[B]."""
        return code.magnitude(norms)


class AnnealedReLU(Sparse):
    """Computes z = relu(x W + b) for a penalty sum z^p whose p falls in stages (p-annealing).

    When p changes, the penalty is multiplied from then on by E[sum z^p_old] / E[sum z^p_new], means
    over the batch, so that its value is continuous (Karvonen et al. 2024, appendix). If the decoder
    is a Dictionary, each z is first multiplied by the norm of its atom. Train it with `losses.lp`.

    Attributes:
      latents: the number of latents m.
      powers: the power p of each stage.
      begin: the step at which the second stage starts.
      every: the number of steps of each later stage.
    """

    latents: int
    powers: tuple[float, ...] = (1.0, 0.8, 0.6, 0.4, 0.2)
    begin: int = 1000
    every: int = 1000

    def check(self) -> None:
        """Raises UserError unless all `powers` and `every` are positive."""
        stages = "the p of one stage or more, each above 0"
        check(self, "powers", lambda powers: len(powers) and min(powers) > 0, stages)
        check_positive(self, "every")

    @nn.compact
    def activate(self, inputs: Array, step: Any, decoder: Any) -> SparseCode:
        """Computes the code of inputs f32[B, D], with a dense z f32[B, m]."""
        z = nn.relu(self.project(inputs))
        stage = self.variable("memory", "stage", jnp.zeros, (), jnp.int32)
        scale = self.variable("memory", "log_scale", jnp.zeros, (), jnp.float32)
        if self.is_mutable_collection("memory") and not self.is_initializing():
            passed = jnp.asarray(step, jnp.int32) - self.begin
            now = jnp.where(passed < 0, 0, 1 + passed // self.every)
            now = jnp.minimum(now, len(self.powers) - 1)
            powers = jnp.asarray(self.powers, jnp.float32)
            known = isinstance(decoder, LinearDecoder)
            sized = z * atom_norms(decoder, self.latents)[None] if known else z
            old, new = (jnp.mean(power_sum(sized, powers[i])) for i in (stage.value, now))
            change = jnp.log(jnp.maximum(old, 1e-12)) - jnp.log(jnp.maximum(new, 1e-12))
            scale.value = scale.value + jnp.where(now == stage.value, 0.0, change)
            stage.value = now
        return SparseCode(z, jnp.sum(z > 0, axis=-1).astype(jnp.float32))

    def penalty(self, code: SparseCode, norms: Array | None = None) -> Array:
        """Computes the sum of (z ||atom||)^p with the p of the current stage, rescaled, f32[B]."""
        memory, z = self.variables["memory"], code.dense()
        p = jnp.asarray(self.powers, jnp.float32)[memory["stage"]]
        z = z if norms is None else z * norms[None]
        return jnp.exp(memory["log_scale"]) * power_sum(z, p)

    def plain(self, params: Mapping[str, Any], memory: Any, norms: Array) -> dict[str, Any]:
        """Returns the fields of Plain that describe the encoder, which is that of a ReLU."""
        return {"activation": ReLU.kind, "b_enc": params["encode"]["bias"]}


def power_sum(z: Array, p: Array) -> Array:
    """Computes the sum of z^p over the active latents, f32[B]; inactive ones get no gradient.

    Inactive latents are masked before the power is computed, because for p < 1 the derivative of
    z^p at zero is infinite, and infinity times zero is NaN.
    """
    active = z > 0
    return jnp.sum(jnp.where(active, jnp.power(jnp.where(active, z, 1.0), p), 0.0), axis=-1)
