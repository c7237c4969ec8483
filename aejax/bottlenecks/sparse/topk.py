"""Bottlenecks that keep k latents of each example: TopK, and AbsTopK, which keeps signs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.bottlenecks.sparse.base import Sparse
from aejax.bottlenecks.sparse.code import Rows, SparseCode
from aejax.bottlenecks.sparse.plain import Architectures, Plain
from aejax.checks import check, whole
from aejax.errors import UserError
from aejax.kernels.encode import encode_at, encode_topk, project
from aejax.kernels.platform import form_or_default
from aejax.kernels.select import largest
from aejax.kernels.threshold import kth_of_rows
from aejax.types import Array


class Largest(Sparse):
    """Base class of bottlenecks that keep the k latents of each example with the highest scores.

    Attributes:
      latents: the number of latents m, usually many times the size of x.
      k: the number of latents that are kept for each example.
      score_by_norm: whether scores are multiplied by ||atom||, as if the atoms had norm 1.
      active: how many of the k kept latents may be nonzero, 1 to k; unlike k it may be a traced
        array, so that one program can train models with several values. None: all k.
    """

    latents: int
    k: int  # pyright: ignore[reportGeneralTypeIssues]
    score_by_norm: bool = False
    active: Any = None

    selects = True
    scales = ("b_enc",)
    signed: ClassVar[bool] = False  # whether scores are magnitudes and values keep their signs
    recall = None

    def check(self) -> None:
        """Raises UserError if k, active or recall is out of range."""
        latents, k = self.latents, self.k
        if isinstance(k, jax.Array):
            name = type(self).__name__
            raise UserError(
                f"{name} has a traced k, but k is the size of an array, which cannot vary in one "
                "program: give the largest k as a number, and sweep active, as in "
                f"{name}({latents}, 32, active=k)"
            )
        wanted = f"a whole number from 1 to {latents}, its latents"
        check(self, "k", lambda k: whole(k) and 1 <= k <= latents, wanted)
        if self.active is not None:
            check(self, "active", lambda n: 1 <= n <= k, f"a number from 1 to {k}, which is its k")
        if self.recall is not None:
            check(self, "recall", lambda share: 0 < share <= 1, "a share above 0, and at most 1")

    def _masked(self, inputs: Array, decoder: Any) -> SparseCode:
        """Computes the code in the dense form: a dense z, f32[B, m]."""
        pre = self.project(inputs)
        values, norms = pre if self.signed else nn.relu(pre), self.norms(decoder)
        score = jnp.abs(values) if self.signed else values
        score = jax.lax.stop_gradient(score if norms is None else score * norms[None])
        threshold = kth_of_rows(score, self.k, self.active, self.recall)
        # `score >= threshold` would turn a NaN into 0, but a NaN must stay visible in z.
        z = jnp.where(score < threshold, 0.0, values)
        return SparseCode(z, jnp.sum(z != 0, axis=-1).astype(jnp.float32), projected=pre)

    def plain(self, params: Mapping[str, Any], memory: Any, norms: Array) -> dict[str, Any]:
        """Returns the fields of Plain that describe the encoder, without W_enc.

        Plain.k is `active`, rounded up, or this bottleneck's k if `active` is None.
        """
        used = self.k if self.active is None else min(self.k, math.ceil(float(self.active)))
        return {
            "activation": self.kind or type(self),
            "b_enc": params["encode"]["bias"],
            "k": used,
            "rescale_acts_by_decoder_norm": self.score_by_norm,
        }

    @classmethod
    def from_plain(cls, plain: Plain) -> tuple[Sparse, dict[str, Any]]:
        """Returns a bottleneck and its parameters, which compute the codes of the plain weights."""
        how: dict[str, Any] = {
            "k": plain.needed("k"),
            "score_by_norm": plain.rescale_acts_by_decoder_norm,
            "subtract_bias": plain.apply_b_dec_to_input,
        }
        return cls(plain.latents, **how), plain.projection()

    @classmethod
    def apply_plain(cls, plain: Plain, pre: Array) -> Array:
        """Returns the k values of pre + b_enc with the highest scores, and zero elsewhere."""
        pre = pre + plain.needed("b_enc")[None]
        score = jnp.abs(pre) if cls.signed else pre
        if plain.rescale_acts_by_decoder_norm:
            score = score * jnp.linalg.norm(plain.W_dec, axis=-1)[None]
        indices = jax.lax.top_k(score, plain.needed("k"))[1]
        values = jnp.take_along_axis(pre, indices, axis=-1)
        values = values if cls.signed else nn.relu(values)
        return Rows(values, indices, pre.shape[1]).dense()


class TopK(Largest):
    """Keeps the k largest elements of x W + b, negative ones as zero (Gao et al. 2024, equation 4).

    Attributes:
      latents: the number of latents m, usually many times the size of x.
      k: the number of latents that are kept for each example; fewer are active if fewer
        pre-activations are positive.
      score_by_norm: whether to select by (x W + b) * ||atom||, as if the atoms had norm 1.
      active: how many of the k kept latents may be nonzero, 1 to k; unlike k it may be a traced
        array, so that one program can train models with several values. None: all k.
      recall: the expected share of the k largest that an approximate selection finds; it is faster
        than exact selection on TPUs only. None: the selection is exact.
    """

    recall: float | None = None

    kind = "topk"
    saelens = Architectures("topk")

    def activate(self, inputs: Array, step: Any, decoder: Any) -> SparseCode:
        """Computes the code of inputs f32[B, D]; z is `Rows` or dense, as `form` says."""
        if form_or_default(self.form) == "dense":
            return self._masked(inputs, decoder)
        kernel, bias = self.encode(inputs.shape[-1])
        norms = self.norms(decoder)
        how = self.k, norms, self.dtype, self.recall
        values, indices = encode_topk(inputs, kernel, bias, *how)
        values = nn.relu(values)
        values = _first(values, self.active)
        l0 = jnp.sum(values > 0, axis=-1).astype(jnp.float32)
        return SparseCode(Rows(values, indices, self.latents), l0)


class AbsTopK(Largest):
    """Keeps the k elements of x W + b that are largest in magnitude, with their signs.

    Attributes:
      latents: the number of latents m.
      k: the number of latents that are kept for each example.
      score_by_norm: whether to select by |x W + b| * ||atom||.
      active: how many of the k kept latents may be nonzero, 1 to k; unlike k it may be a traced
        array, so that one program can train models with several values. None: all k.
    """

    kind = "abstopk"
    saelens = Architectures("abstopk")
    signed = True

    def activate(self, inputs: Array, step: Any, decoder: Any) -> SparseCode:
        """Computes the code of inputs f32[B, D]; z is `Rows` or dense, as `form` says."""
        if form_or_default(self.form) == "dense":
            return self._masked(inputs, decoder)
        kernel, bias = self.encode(inputs.shape[-1])
        stopped = jax.lax.stop_gradient(inputs), jax.lax.stop_gradient(kernel)
        product = project(stopped[0], stopped[1], self.dtype)
        magnitude = jnp.abs(product + bias[None])
        indices = largest(magnitude, jnp.zeros_like(bias), self.norms(decoder), self.k)
        taken = jnp.take_along_axis(product, indices, axis=1, mode="promise_in_bounds")
        values = encode_at(taken, inputs, kernel, bias, indices, self.dtype)
        values = _first(jnp.asarray(values), self.active)
        l0 = jnp.sum(values != 0, axis=-1).astype(jnp.float32)
        return SparseCode(Rows(values, indices, self.latents), l0)


def _first(values: Array, active: Any) -> Array:
    """Sets all but the first `active` columns of values f32[B, k] to 0.

    The columns are sorted by score, highest first.
    """
    if active is None:
        return values
    return jnp.where(jnp.arange(values.shape[1])[None] < active, values, 0.0)
