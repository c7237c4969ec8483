"""The sparse code with k latents an example on average: BatchTopK, JumpReLU once trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.bottlenecks.sparse.base import Sparse, atom_norms, project
from aejax.bottlenecks.sparse.code import Rows, SparseCode
from aejax.kernels import encode
from aejax.kernels.select import largest
from aejax.members import any_member
from aejax.types import Array


class BatchTopK(Sparse):
    """The k B largest of relu(x W + b) over a whole batch (Bussmann et al. 2024, section 3).

    In training each example has `slots` slots; where one needs more, what does not fit spills into
    a dense remainder, at a dense code's cost for that batch, so the selection is exact. Otherwise
    the code is JumpReLU with one threshold, a moving average of the smallest value kept.

    Attributes:
      latents: m.
      k: active latents of an example, the mean over the batch; need not be whole. A sweep may trace
        it, if it gives `slots`.
      slots: of one example; None: 2 k.
      score_by_norm: selects by (x W + b) * ||atom||, as if the atoms had norm 1.
      rate: of the threshold's moving average.
      from_zero: starts that average at 0 instead of at the first batch's value.
    """

    latents: int
    k: float  # pyright: ignore[reportGeneralTypeIssues]
    slots: int | None = None
    score_by_norm: bool = False
    rate: float = 0.01
    from_zero: bool = False

    @nn.compact
    def activate(self, inputs: Array, step: Any, decoder: Any) -> SparseCode:
        """f32[B, D] -> SparseCode: Rows in training, else a dense z f32[B, m]."""
        del step
        threshold = self.variable("memory", "threshold", jnp.zeros, (), jnp.float32)
        norms = self.norms(decoder)
        kernel, bias = self.encode(inputs.shape[-1])
        stopped = jax.lax.stop_gradient(inputs), jax.lax.stop_gradient(kernel)
        product = encode.project(stopped[0], stopped[1], self.dtype)
        training = self.is_mutable_collection("memory") and not self.is_initializing()
        if not training:
            pre = nn.relu(self.project(inputs))
            score = pre if norms is None else pre * norms[None]  # pyright: ignore[reportAssignmentType]
            z = jnp.where(score > threshold.value, pre, 0.0)  # pyright: ignore[reportOperatorIssue]
            return SparseCode(z, jnp.sum(z > 0, axis=-1).astype(jnp.float32))

        indices = largest(product, bias, norms, self._slots())
        values = nn.relu(encode.encode_at(product, inputs, kernel, bias, indices, self.dtype))
        weights = jnp.ones_like(bias) if norms is None else norms

        def score() -> Array:
            return nn.relu(product + bias[None]) * weights[None]

        top = jax.lax.stop_gradient(values * jnp.take(weights, indices))
        chosen = settle(top, indices, score, self.latents, self._count(values.shape[0]))
        smallest = jnp.where(jnp.isfinite(chosen.smallest), chosen.smallest, threshold.value)
        first = (threshold.value == 0.0) & (not self.from_zero)
        moved = threshold.value + self.rate * (smallest - threshold.value)
        threshold.value = jnp.where(first, smallest, moved)
        values = jnp.where(chosen.kept, values, 0.0)

        def remainder(inputs: Array, kernel: Array, bias: Array) -> Array:
            pre = project(inputs, kernel, bias, self.dtype)
            return jnp.where(chosen.spilled, nn.relu(pre), 0.0)

        def nothing(*_: Array) -> Array:
            return jnp.zeros(product.shape)

        spill = jax.lax.cond(chosen.overflow, remainder, nothing, inputs, kernel, bias)
        overflow = jnp.broadcast_to(chosen.overflow, (product.shape[0],)).astype(jnp.int32)
        rows = Rows(values, chosen.indices, self.latents, spill, overflow)
        active = jnp.sum(values > 0, axis=-1) + jnp.sum(spill > 0, axis=-1)
        return SparseCode(rows, active.astype(jnp.float32))

    def norms(self, decoder: Any) -> Array | None:
        """What selection scales the pre-activations by, f32[m], or None."""
        return atom_norms(decoder, self.latents) if self.score_by_norm else None

    def plain(self, params: Mapping[str, Any], memory: Any, norms: Array) -> dict[str, Any]:
        """The fields of Plain: the threshold of the scores becomes one of the pre-activations."""
        threshold = jnp.full((self.latents,), memory["threshold"])
        return {
            "activation": "jumprelu",
            "b_enc": params["encode"]["bias"],
            "threshold": threshold / norms if self.score_by_norm else threshold,
        }

    def _slots(self) -> int:
        wanted = math.ceil(2 * self.k) if self.slots is None else self.slots
        return min(self.latents, wanted)

    def _count(self, size: int) -> int | Array:
        """How many a batch of so many examples keeps."""
        if isinstance(self.k, jax.Array):
            return jnp.round(self.k * size).astype(jnp.int32)
        return round(self.k * size)


class Chosen(NamedTuple):
    """The `count` largest of a batch's scores."""

    indices: Array  # i32[B, S], the S largest of each example
    kept: Array  # bool[B, S], which of them are among the chosen
    spilled: Array  # bool[B, m], chosen ones that have no slot; read only where overflow
    overflow: Array  # bool[], whether there are any; in a sweep, for any member
    smallest: Array  # f32[], the smallest positive score chosen; infinite where there is none


def choose(score: Array, count: int, slots: int) -> Chosen:
    """Finds the `count` largest scores of a batch exactly, mostly by looking at S a row.

    If no row's S-th largest score is above the threshold found among the S largest of all rows,
    none without a slot is, and the threshold is that of the whole batch.

    Args:
      score: f32[B, m], not negative.
      count: how many to choose; at most B * slots are looked at unless rows overflow.
      slots: S.
    """
    indices = largest(score, jnp.zeros((score.shape[1],)), None, slots)
    top = jnp.take_along_axis(score, indices, axis=1)
    return settle(top, indices, lambda: score, score.shape[1], count)


def settle(
    top: Array, indices: Array, score: Callable[[], Array], latents: int, count: int | Array
) -> Chosen:
    """`choose`, where each row's S largest are at hand; all scores are asked for in need only.

    Args:
      top: f32[B, S], not negative, largest first.
      indices: i32[B, S], whose scores they are.
      score: gives f32[B, m].
      latents: m.
      count: how many to choose.
    """
    size, slots = top.shape
    count = jnp.minimum(count, min(size * latents, jnp.iinfo(jnp.int32).max))
    threshold = kth_largest(top, count)
    overflow = jnp.any(top[:, -1] > threshold) if slots < latents else jnp.zeros((), bool)
    # With fewer slots than are to be chosen the remainder is all that can hold them.
    overflow = any_member(overflow | (count > top.size))
    infinite = jnp.asarray(jnp.inf, top.dtype)

    def inside() -> tuple[Array, Array, Array]:
        return _exactly(top, threshold, count), jnp.zeros((size, latents), bool), infinite

    def dense() -> tuple[Array, Array, Array]:
        every = score()
        chosen = _exactly(every, kth_largest(every, count), count)
        rows = jnp.broadcast_to(jnp.arange(size)[:, None], indices.shape)
        spilled = chosen.at[rows, indices].set(False)
        least = jnp.min(jnp.where(spilled & (every > 0), every, infinite))
        return chosen[rows, indices], spilled, least

    kept, spilled, rest = jax.lax.cond(overflow, dense, inside)
    smallest = jnp.min(jnp.where(kept & (top > 0), top, infinite))
    return Chosen(indices, kept, spilled, overflow, jnp.minimum(smallest, rest))


def kth_largest(values: Array, k: int | Array) -> Array:
    """The k-th largest of all values, by bisection on their bits: no sort, one count a bit, f32[].

    Args:
      values: f32, not negative (the bits of such floats order as they do).
      k: from 1; 0 is found where it is more than there are values.
    """
    bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.int32)

    def add_bit(i: Array, found: Array) -> Array:
        tried = found | (jnp.int32(1) << (30 - i))
        return jnp.where(jnp.sum(bits >= tried) >= k, tried, found)

    found = jax.lax.fori_loop(0, 31, add_bit, jnp.zeros((), jnp.int32))
    return jax.lax.bitcast_convert_type(found, jnp.float32)


def _exactly(values: Array, threshold: Array, count: Array) -> Array:
    """Which values are chosen, `count` of them: ties at the threshold go to the first ones."""
    above = values > threshold
    tied = values == threshold
    room = count - jnp.sum(above)
    first = jnp.cumsum(tied.ravel()).reshape(values.shape) <= room
    return above | (tied & first)
