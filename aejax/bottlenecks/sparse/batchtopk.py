"""The sparse code with k latents an example on average: BatchTopK, JumpReLU once trained."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.bottlenecks.sparse.base import Sparse, atom_norms
from aejax.bottlenecks.sparse.code import Rows, SparseCode
from aejax.branches import switch
from aejax.kernels import encode
from aejax.kernels.mask import counts
from aejax.kernels.select import largest
from aejax.members import any_member
from aejax.types import Array


class BatchTopK(Sparse):
    """The k B largest of relu(x W + b) over a whole batch (Bussmann et al. 2024, section 3).

    In training each example has `slots` slots. Examples that need more keep what does not fit in a
    dense remainder, at a dense code's cost for these examples (see `levels`), so the selection is
    exact. Otherwise the code is JumpReLU with one threshold, a moving average of the smallest value
    kept.

    Attributes:
      latents: m.
      k: active latents of an example, the mean over the batch; need not be whole. A sweep may trace
        it, if it gives `slots`.
      slots: of one example; None: 2 k.
      score_by_norm: selects by (x W + b) * ||atom||, as if the atoms had norm 1.
      rate: of the threshold's moving average.
      from_zero: starts that average at 0 instead of at the first batch's value.
      begin: the step at which it starts; dictionary_learning: 1000, at a rate of 0.001.
    """

    latents: int
    k: float  # pyright: ignore[reportGeneralTypeIssues]
    slots: int | None = None
    score_by_norm: bool = False
    rate: float = 0.01
    from_zero: bool = False
    begin: int = 0

    @nn.compact
    def activate(self, inputs: Array, step: Any, decoder: Any) -> SparseCode:
        """f32[B, D] -> SparseCode: Rows in training, else a dense z f32[B, m]."""
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

        count = self._count(values.shape[0])
        top = jax.lax.stop_gradient(values * jnp.take(weights, indices))
        # Stopped: a derivative of the selection would be made ready in every batch.
        seen = product, jax.lax.stop_gradient(bias), jax.lax.stop_gradient(weights)
        chosen = settle(top, indices, functools.partial(scores, *seen), self.latents, count)
        smallest = jnp.where(jnp.isfinite(chosen.smallest), chosen.smallest, threshold.value)
        first = (threshold.value == 0.0) & (not self.from_zero)
        moved = threshold.value + self.rate * (smallest - threshold.value)
        begun = jnp.asarray(step) >= self.begin
        threshold.value = jnp.where(begun, jnp.where(first, smallest, moved), threshold.value)
        values = jnp.where(chosen.kept, values, 0.0)
        active = jnp.sum(values > 0, axis=-1) + chosen.active
        spill = Remainder(inputs, kernel, bias, product, weights, indices, chosen, self.dtype)
        rows = Rows(values, indices, self.latents, spill)
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
    """The `count` largest of a batch's scores: those in slots, and how to find the others."""

    kept: Array  # bool[B, S], which of the slots are among the chosen
    least: Array  # f32[], the score of the last one chosen
    room: Array  # i32[], how many are chosen at that very score among examples looked at as a whole
    smallest: Array  # f32[], the smallest positive score chosen; infinite where there is none
    rows: Array  # i32[B], the examples, those first that overflow soonest
    level: Array  # i32[], how many of them were looked at as a whole: an index of `levels`
    active: Array  # i32[B], chosen ones above zero that have no slot
    used: Array  # bool[m], their latents


def levels(size: int) -> tuple[int, ...]:
    """How many examples of a batch are looked at as a whole: all or none where it is small."""
    if size < 256:
        return (0, size)
    return tuple(sorted({0, size // 8, 3 * size // 16, size // 4, size}))


def scores(product: Array, bias: Array, weights: Array, rows: Array) -> Array:
    """relu(x W + b) * weights of some examples i32[R], f32[R, m]."""
    return nn.relu(jnp.take(product, rows, axis=0) + bias[None]) * weights[None]


def settle(
    top: Array, indices: Array, score: Callable[[Array], Array], latents: int, count: int | Array
) -> Chosen:
    """Finds the `count` largest scores of a batch exactly, mostly by looking at S an example.

    Examples are looked at as a whole in the order of their S-th scores, as many as it takes: once
    the threshold of these and of the others' S is not below the next example's S-th score, no
    other has a chosen one without a slot, and the threshold is that of the whole batch.

    Args:
      top: f32[B, S], each example's S largest, not negative, largest first.
      indices: i32[B, S], whose scores they are.
      score: gives all scores of some examples, i32[R] -> f32[R, m].
      latents: m.
      count: how many to choose.
    """
    size, slots = top.shape
    count = jnp.minimum(count, min(size * latents, jnp.iinfo(jnp.int32).max))
    last = top[:, -1] if slots < latents else jnp.zeros((size,))
    # With fewer slots than are to be chosen every example may have to hold more.
    last = jnp.where(count > top.size, jnp.inf, last)
    rows = jnp.argsort(-last, stable=True).astype(jnp.int32)

    def apart(examples: int) -> tuple[Array, Array]:
        some = rows[:examples]
        return top.at[some].set(0.0), score(some)

    def threshold(examples: int) -> Array:
        return kth_largest(apart(examples), count)

    def beyond(examples: int, least: Array) -> Array:
        """How many others may hold more than their slots: the threshold only rises from here."""
        return jnp.sum(last[rows[examples:]] > least)

    several = levels(size)
    least = threshold(0)
    short = any_member(beyond(0, least) > 0)
    least = jax.lax.cond(short, functools.partial(threshold, several[1]), lambda: least)
    wanted = several[1] + beyond(several[1], least)
    more = [any_member(wanted > examples) for examples in several[1:-1]]
    level = short * (1 + sum(one.astype(jnp.int32) for one in more))
    finer = [lambda: least, lambda: least, *(functools.partial(threshold, n) for n in several[2:])]
    least = jax.lax.switch(level, finer)

    def look(examples: int) -> tuple[Array, ...]:
        some, (alone, every) = rows[:examples], apart(examples)
        above = jnp.sum(alone > least) + jnp.sum(every > least)
        kept = _first(alone, least, count - above)
        room = count - above - jnp.sum(kept & (alone == least))
        chosen = _first(every, least, room)
        kept = kept.at[some].set(jnp.take_along_axis(chosen, indices[some], axis=1))
        spilled = slotless(chosen, indices[some]) & (every > 0)
        smallest = jnp.min(jnp.where(spilled, every, jnp.inf), initial=jnp.inf)
        active = jnp.sum(spilled, axis=1, dtype=jnp.int32)
        active = jnp.zeros((size,), jnp.int32).at[some].set(active)
        return kept, room, smallest, active, jnp.any(spilled, axis=0)

    looks = [functools.partial(look, examples) for examples in levels(size)]
    kept, room, rest, active, used = jax.lax.switch(level, looks)
    smallest = jnp.minimum(jnp.min(jnp.where(kept & (top > 0), top, jnp.inf)), rest)
    return Chosen(kept, least, room, smallest, rows, level, active, used)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Remainder:
    """The chosen latents that have no slot: what finds them, so that none costs nothing."""

    inputs: Array  # f32[B, D]
    kernel: Array  # f32[D, m]
    bias: Array  # f32[m]
    product: Array  # f32[B, m], inputs W, as the selection saw it
    weights: Array  # f32[m], of the scores
    indices: Array  # i32[B, S], which have a slot
    chosen: Chosen
    dtype: Any = dataclasses.field(metadata={"static": True})
    # Latents from the first number to before the second; None: all.
    within: tuple[int, int] | None = dataclasses.field(default=None, metadata={"static": True})

    @property
    def used(self) -> Array:
        """Latents that some example has here, bool[m]."""
        return self.chosen.used

    def between(self, low: int, high: int) -> Remainder:
        """The same without all latents but low <= i < high."""
        return dataclasses.replace(self, within=(low, high))

    def map(self, function: Callable[[Array], Array], like: Array) -> Array:
        """A function of each example's remainder, at the cost of the examples that have one.

        Args:
          function: f32[R, m] -> f32[R, ...], of zeros zeros.
          like: f32[B, ...], of the result's shape.
        """
        zeros = jnp.zeros(like.shape, like.dtype)

        def some(examples: int) -> Array:
            rows = self.chosen.rows[:examples]
            return zeros.at[rows].set(function(self._dense(examples))) if examples else zeros

        size = like.shape[0]
        return switch(self.chosen.level, [functools.partial(some, n) for n in levels(size)])

    def _dense(self, examples: int) -> Array:
        """Of the first so many of the rows, f32[R, m]."""
        rows = self.chosen.rows[:examples]
        seen = (jnp.take(a, rows, axis=0) for a in (self.product, self.inputs))
        pre = nn.relu(encode.encode_all(*seen, self.kernel, self.bias, self.dtype))
        seen = jax.lax.stop_gradient((self.product, self.bias, self.weights))
        score = scores(*seen, rows)
        chosen = _first(score, self.chosen.least, self.chosen.room)
        chosen = slotless(chosen, jnp.take(self.indices, rows, axis=0))
        if self.within is not None:
            column = jnp.arange(score.shape[1])[None]
            chosen = chosen & (column >= self.within[0]) & (column < self.within[1])
        return jnp.where(chosen, pre, 0.0)


def slotless(chosen: Array, indices: Array) -> Array:
    """bool[R, m] without those that have a slot, i32[R, S]."""
    rows = jnp.broadcast_to(jnp.arange(chosen.shape[0])[:, None], indices.shape)
    return chosen.at[rows, indices].set(False)


def kth_largest(parts: Sequence[Array], k: int | Array) -> Array:
    """The k-th largest of all values, by bisection on their bits: no sort, one count a bit, f32[].

    Args:
      parts: f32[n, c], not negative (the bits of such floats order as they do).
      k: from 1; 0 is found where it is more than there are values.
    """
    all_bits = [jax.lax.bitcast_convert_type(p.astype(jnp.float32), jnp.int32) for p in parts]

    def add_bit(i: Array, found: Array) -> Array:
        tried = found | (jnp.int32(1) << (30 - i))
        count = sum(jnp.sum(counts(bits, tried)) for bits in all_bits)
        return jnp.where(count >= k, tried, found)

    found = jax.lax.fori_loop(0, 31, add_bit, jnp.zeros((), jnp.int32))
    return jax.lax.bitcast_convert_type(found, jnp.float32)


def _first(values: Array, threshold: Array, room: Array) -> Array:
    """Which values are above the threshold or are the first `room` ones at it; at 0 all are."""
    tied = values == threshold

    def counted() -> Array:
        return tied & (jnp.cumsum(tied.ravel()).reshape(values.shape) <= room)

    # Counting along them takes longer than all else here, and ties are rare.
    many = any_member((jnp.sum(tied) > room) & (threshold > 0))
    some = jax.lax.cond(many, counted, lambda: tied)
    return (values > threshold) | some
