"""The sparse code of L1 penalties: whatever is positive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from aejax.bottlenecks.sparse.base import Sparse
from aejax.bottlenecks.sparse.code import SparseCode
from aejax.bottlenecks.sparse.plain import Architectures, Plain
from aejax.checks import check, check_positive
from aejax.types import Array


class ReLU(Sparse):
    """z = relu(x W + b), to be trained with an L1 penalty (Bricken et al. 2023).

    Attributes:
      latents: m, usually many times the size of x.
    """

    latents: int

    kind = "relu"
    saelens = Architectures("standard", "transcoder", "skip_transcoder")

    def activate(self, inputs: Array, step: Any, decoder: Any) -> SparseCode:
        """f32[B, D] -> SparseCode with a dense z f32[B, m]."""
        z = nn.relu(self.project(inputs))
        return SparseCode(z, jnp.sum(z > 0, axis=-1).astype(jnp.float32))

    @classmethod
    def apply_plain(cls, plain: Plain, pre: Array) -> Array:
        """relu(pre + b_enc)."""
        return nn.relu(pre + plain.needed("b_enc")[None])

    def penalty(self, code: SparseCode) -> Array:
        """The L1 norm of z, f32[B]."""
        return code.magnitude()


class AnnealedReLU(Sparse):
    """relu(x W + b) under a penalty sum z^p whose p falls from stage to stage (p-annealing).

    Whenever p changes, the penalty is rescaled by E sum z^p_old / E sum z^p_new of that batch, so
    that its size does not jump (Karvonen et al. 2024, appendix). Trained with `losses.lp`.

    Attributes:
      latents: m.
      powers: p of each stage.
      begin: the step at which the second stage starts.
      every: steps a stage.
    """

    latents: int
    powers: tuple[float, ...] = (1.0, 0.8, 0.6, 0.4, 0.2)
    begin: int = 1000
    every: int = 1000

    def check(self) -> None:
        """Raises UserError for stages that there are not."""
        stages = "the p of one stage or more, each above 0"
        check(self, "powers", lambda powers: len(powers) and min(powers) > 0, stages)
        check_positive(self, "every")

    @nn.compact
    def activate(self, inputs: Array, step: Any, decoder: Any) -> SparseCode:
        """f32[B, D] -> SparseCode with a dense z f32[B, m]."""
        z = nn.relu(self.project(inputs))
        stage = self.variable("memory", "stage", jnp.zeros, (), jnp.int32)
        scale = self.variable("memory", "log_scale", jnp.zeros, (), jnp.float32)
        if self.is_mutable_collection("memory") and not self.is_initializing():
            passed = jnp.asarray(step, jnp.int32) - self.begin
            now = jnp.where(passed < 0, 0, 1 + passed // self.every)
            now = jnp.minimum(now, len(self.powers) - 1)
            powers = jnp.asarray(self.powers, jnp.float32)
            old, new = (jnp.mean(power_sum(z, powers[i])) for i in (stage.value, now))
            change = jnp.log(jnp.maximum(old, 1e-12)) - jnp.log(jnp.maximum(new, 1e-12))
            scale.value = scale.value + jnp.where(now == stage.value, 0.0, change)
            stage.value = now
        return SparseCode(z, jnp.sum(z > 0, axis=-1).astype(jnp.float32))

    def penalty(self, code: SparseCode) -> Array:
        """The present stage's sum z^p, rescaled, f32[B]."""
        memory = self.variables["memory"]
        p = jnp.asarray(self.powers, jnp.float32)[memory["stage"]]
        return jnp.exp(memory["log_scale"]) * power_sum(code.dense(), p)

    def plain(self, params: Mapping[str, Any], memory: Any, norms: Array) -> dict[str, Any]:
        """The fields of Plain: once it is trained, it is a ReLU."""
        return {"activation": ReLU.kind, "b_enc": params["encode"]["bias"]}


def power_sum(z: Array, p: Array) -> Array:
    """The sum of z^p over latents that are active, f32[B]; silent ones have no gradient.

    At zero the derivative of z^p is infinite for p < 1, and infinity times zero is no number.
    """
    active = z > 0
    return jnp.sum(jnp.where(active, jnp.power(jnp.where(active, z, 1.0), p), 0.0), axis=-1)
