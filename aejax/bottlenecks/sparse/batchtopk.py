"""The sparse code with k latents an example on average: BatchTopK, JumpReLU once trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.bottlenecks.sparse.base import Sparse
from aejax.bottlenecks.sparse.code import Rows, SparseCode
from aejax.bottlenecks.sparse.jumprelu import JumpReLU
from aejax.checks import check, whole
from aejax.errors import UserError
from aejax.kernels import encode
from aejax.kernels.batch import Found, largest_of_batch
from aejax.types import Array


class BatchTopK(Sparse):
    """The k B largest of relu(x W + b) over a whole batch (Bussmann et al. 2024, section 3).

    In training an example may hold any number of them, so the selection is exact. Otherwise the
    code is JumpReLU with one threshold, a moving average of the smallest value kept.

    Attributes:
      latents: m.
      k: active latents of an example, the mean over the batch; need not be whole. A sweep may trace
        it, if it gives `slots`.
      slots: of an example, the mean over the batch: what a step costs, and the most that a k which
        is traced may be; None: k.
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

    def check(self) -> None:
        """Raises UserError for numbers of latents that there are not."""
        m = self.latents
        check(self, "k", lambda k: 0 < k <= m, f"a number above 0, and at most {m}, its latents")
        check(self, "rate", lambda rate: 0 < rate <= 1, "a number above 0, and at most 1")
        if self.slots is not None:
            wanted = f"a whole number from 1 to {m}, its latents"
            check(self, "slots", lambda n: whole(n) and 1 <= n <= m, wanted)

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
            # Not `>`: NaN is to be seen in z.
            z = jnp.where(score <= threshold.value, 0.0, pre)  # pyright: ignore[reportOperatorIssue]
            return SparseCode(z, jnp.sum(z > 0, axis=-1).astype(jnp.float32))

        size = inputs.shape[0]
        count, room = self._count(size)
        slots = in_rows(largest_of_batch(product, bias, norms, count, room), size, room)
        indices, example = slots.indices, slots.example
        taken = product.at[example[:, None], indices].get(mode="promise_in_bounds")
        own = jnp.take(inputs, example, axis=0)
        values = nn.relu(encode.encode_at(taken, own, kernel, bias, indices, self.dtype))
        values = jnp.where(slots.used, values, 0.0)
        rows = Rows(values, indices, self.latents, example, size)

        score = jax.lax.stop_gradient(values)
        score = score if norms is None else score * jnp.take(norms, indices)
        smallest = jnp.min(jnp.where(score > 0, score, jnp.inf))
        smallest = jnp.where(jnp.isfinite(smallest), smallest, threshold.value)
        first = (threshold.value == 0.0) & (not self.from_zero)
        moved = threshold.value + self.rate * (smallest - threshold.value)
        begun = jnp.asarray(step) >= self.begin
        threshold.value = jnp.where(begun, jnp.where(first, smallest, moved), threshold.value)
        active = rows.per_example(jnp.sum(values > 0, axis=-1))
        return SparseCode(rows, active.astype(jnp.float32))

    def plain(self, params: Mapping[str, Any], memory: Any, norms: Array) -> dict[str, Any]:
        """The fields of Plain: the threshold of the scores becomes one of the pre-activations."""
        threshold = jnp.full((self.latents,), memory["threshold"])
        return {
            "activation": JumpReLU.kind,
            "b_enc": params["encode"]["bias"],
            "threshold": threshold / norms if self.score_by_norm else threshold,
        }

    def _count(self, size: int) -> tuple[int | Array, int]:
        """How many a batch of so many examples keeps, and for how many there is room."""
        if isinstance(self.k, jax.Array):
            if self.slots is None:
                raise UserError("a sweep over BatchTopK's k needs its largest: give slots")
            return jnp.round(self.k * size).astype(jnp.int32), self.slots * size
        count = round(self.k * size)
        if count < 1:
            raise UserError(
                f"BatchTopK has k = {self.k}, which keeps no latent of a batch of {size}: give a "
                "larger k, or larger batches"
            )
        room = count if self.slots is None else self.slots * size
        if count > room:
            raise UserError(f"BatchTopK has k = {self.k}, more than its slots, {self.slots}")
        return count, room


class Slots(NamedTuple):
    """Rows of slots, an example's after each other, as many as it needs."""

    indices: Array  # i32[C, w]
    used: Array  # bool[C, w]
    example: Array  # i32[C], never falling


def in_rows(found: Found, size: int, room: int) -> Slots:
    """The chosen latents in rows of w slots, each row of one example.

    A row costs about as much as two slots, and an example leaves up to w - 1 slots empty: so w is
    about the square root of twice the mean number of latents an example.

    Args:
      found: the latents of all examples, in the examples' order.
      size: B.
      room: of `found`, more than which it never holds.
    """
    width = 2 ** max(0, round(math.log2(2 * room / size) / 2))
    rows = min(room, (room + size * (width - 1)) // width)  # what the worst batch needs
    rows = -(-rows // 8) * 8  # even blocks of rows

    # Behind the last one found there are others, of no example.
    owner = jnp.where(jnp.arange(room) < found.count, found.row, size)
    ends = jnp.searchsorted(owner, jnp.arange(size, dtype=jnp.int32), side="right")
    begins = jnp.concatenate([jnp.zeros((1,), ends.dtype), ends[:-1]])
    needed = (ends - begins + width - 1) // width
    last = jnp.cumsum(needed)
    row = jnp.arange(rows, dtype=jnp.int32)
    example = jnp.searchsorted(last, row, side="right").astype(jnp.int32)
    example = jnp.minimum(example, size - 1)  # of the rows left over
    before = jnp.take(last - needed, example)
    entry = jnp.take(begins, example) + width * (row - before)
    entry = entry[:, None] + jnp.arange(width, dtype=jnp.int32)[None]
    used = entry < jnp.take(ends, example)[:, None]
    indices = jnp.take(found.column, jnp.minimum(entry, room - 1))
    return Slots(indices, used, example)
