"""The sparse codes with k latents an example: TopK, and AbsTopK, which keeps signs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.bottlenecks.sparse.base import Sparse, atom_norms
from aejax.bottlenecks.sparse.code import Rows, SparseCode
from aejax.checks import check, whole
from aejax.kernels.encode import encode_at, encode_topk, project
from aejax.kernels.select import largest
from aejax.types import Array


class TopK(Sparse):
    """The k largest of x W + b, cut at zero (Gao et al. 2024, equation 4).

    Attributes:
      latents: m, usually many times the size of x.
      k: slots of one example; fewer are active where fewer pre-activations are positive.
      score_by_norm: selects by (x W + b) * ||atom||, as if the atoms had norm 1.
      active: how many of the slots are used, from 1 to k, which a sweep may trace; None: all k.
      recall: the share of the k largest that is enough: an approximation that is fast on TPUs
        alone; None: all of them, exactly.
    """

    latents: int
    k: int  # pyright: ignore[reportGeneralTypeIssues]
    score_by_norm: bool = False
    active: Any = None
    recall: float | None = None

    def check(self) -> None:
        """Raises UserError for numbers of latents that there are not."""
        _check_numbers(self)

    def activate(self, inputs: Array, step: Any, decoder: Any) -> SparseCode:
        """f32[B, D] -> SparseCode with z as Rows of k slots."""
        del step
        kernel, bias = self.encode(inputs.shape[-1])
        norms = self.norms(decoder)
        how = self.k, norms, self.dtype, self.recall
        values, indices = encode_topk(inputs, kernel, bias, *how)
        values = nn.relu(values)
        values = _first(values, self.active)
        l0 = jnp.sum(values > 0, axis=-1).astype(jnp.float32)
        return SparseCode(Rows(values, indices, self.latents), l0)

    def norms(self, decoder: Any) -> Array | None:
        """What selection scales the pre-activations by, f32[m], or None."""
        return atom_norms(decoder, self.latents) if self.score_by_norm else None

    def plain(self, params: Mapping[str, Any], memory: Any, norms: Array) -> dict[str, Any]:
        """The fields of Plain."""
        del memory, norms
        return {
            "activation": "topk",
            "b_enc": params["encode"]["bias"],
            "k": _used(self.k, self.active),
            "rescale_acts_by_decoder_norm": self.score_by_norm,
        }


class AbsTopK(Sparse):
    """The k of x W + b that are largest in magnitude, with their signs.

    Attributes:
      latents: m.
      k: active latents of each example.
      score_by_norm: selects by |x W + b| * ||atom||.
      active: how many of the slots are used, from 1 to k, which a sweep may trace; None: all k.
    """

    latents: int
    k: int  # pyright: ignore[reportGeneralTypeIssues]
    score_by_norm: bool = False
    active: Any = None

    def check(self) -> None:
        """Raises UserError for numbers of latents that there are not."""
        _check_numbers(self)

    def activate(self, inputs: Array, step: Any, decoder: Any) -> SparseCode:
        """f32[B, D] -> SparseCode with z as Rows of k slots, of either sign."""
        del step
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

    def norms(self, decoder: Any) -> Array | None:
        """What selection scales the pre-activations by, f32[m], or None."""
        return atom_norms(decoder, self.latents) if self.score_by_norm else None

    def plain(self, params: Mapping[str, Any], memory: Any, norms: Array) -> dict[str, Any]:
        """The fields of Plain."""
        del memory, norms
        return {
            "activation": "abstopk",
            "b_enc": params["encode"]["bias"],
            "k": _used(self.k, self.active),
            "rescale_acts_by_decoder_norm": self.score_by_norm,
        }


def _check_numbers(part: Any) -> None:
    latents, k = part.latents, part.k
    wanted = f"a whole number from 1 to {latents}, its latents"
    check(part, "k", lambda k: whole(k) and 1 <= k <= latents, wanted)
    if getattr(part, "recall", None) is not None:
        check(part, "recall", lambda share: 0 < share <= 1, "a share above 0, and at most 1")
    if part.active is not None:
        check(part, "active", lambda n: 1 <= n <= k, f"a number from 1 to {k}, its slots")


def _used(k: int, active: Any) -> int:
    """How many slots of an example `_first` leaves."""
    return k if active is None else min(k, math.ceil(float(active)))


def _first(values: Array, active: Any) -> Array:
    """The first so many slots of f32[B, k], which hold the largest; all where None."""
    if active is None:
        return values
    return jnp.where(jnp.arange(values.shape[1])[None] < active, values, 0.0)
