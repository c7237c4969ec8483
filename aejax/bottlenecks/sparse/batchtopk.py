"""BatchTopK: in training, a batch of B examples has k B active latents in all, its largest ones."""

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
from aejax.kernels.platform import form_or_default
from aejax.kernels.threshold import kth_of_all
from aejax.types import Array


class BatchTopK(Sparse):
    """Keeps the k B largest of relu(x W + b) over a batch of B (Bussmann et al. 2024, section 3).

    In training exactly the k B largest values are kept, however they are divided among examples. In
    evaluation the examples are independent: a value is kept if it is above one threshold for all
    latents, which is a moving average of the smallest value kept in each training batch.

    Attributes:
      latents: the number of latents m.
      k: the mean number of active latents per example; it need not be an integer. It may be a
        traced array if `slots` is given, so that one program can train models with several k.
      slots: an upper bound of k; the arrays have room for slots * B values, and this size, not k,
        determines the time of a step. None: k.
      score_by_norm: whether to select by (x W + b) * ||atom||, as if the atoms had norm 1.
      rate: the weight of a new batch in the threshold's moving average. Early batches have a larger
        weight, about 10 / (number of batches so far), because the threshold grows fast at first.
      from_zero: whether every batch has the weight `rate` and the average starts at 0, as in
        SAELens; the threshold is then too small at first.
      begin: the step at which the average starts; dictionary_learning uses 1000, with rate 0.001.
    """

    latents: int
    k: float  # pyright: ignore[reportGeneralTypeIssues]
    slots: int | None = None
    score_by_norm: bool = False
    rate: float = 0.01
    from_zero: bool = False
    begin: int = 0

    def check(self) -> None:
        """Raises UserError if k, rate or slots is out of range."""
        m = self.latents
        check(self, "k", lambda k: 0 < k <= m, f"a number above 0, and at most {m}, its latents")
        check(self, "rate", lambda rate: 0 < rate <= 1, "a number above 0, and at most 1")
        if self.slots is not None:
            wanted = f"a whole number from 1 to {m}, its latents"
            check(self, "slots", lambda n: whole(n) and 1 <= n <= m, wanted)

    @nn.compact
    def activate(self, inputs: Array, step: Any, decoder: Any) -> SparseCode:
        """Computes the code of inputs f32[B, D]; z is `Rows` in training, else dense f32[B, m].

        In the dense form it is dense in training too.
        """
        threshold = self.variable("memory", "threshold", jnp.zeros, (), jnp.float32)
        norms = self.norms(decoder)
        training = self.is_mutable_collection("memory") and not self.is_initializing()
        if not training:
            pre = nn.relu(self.project(inputs))
            score = pre if norms is None else pre * norms[None]  # pyright: ignore[reportAssignmentType]
            # `score > threshold` would turn a NaN into 0, but a NaN must stay visible in z.
            z = jnp.where(score <= threshold.value, 0.0, pre)  # pyright: ignore[reportOperatorIssue]
            return SparseCode(z, jnp.sum(z > 0, axis=-1).astype(jnp.float32))

        count, room = self._count(inputs.shape[0])
        if form_or_default(self.form) == "dense":
            code, kept = self._masked(inputs, norms, count)
        else:
            code, kept = self._rows(inputs, norms, count, room)
        smallest = jnp.min(jnp.where(kept > 0, kept, jnp.inf))
        smallest = jnp.where(jnp.isfinite(smallest), smallest, threshold.value)
        moved = threshold.value + self._rate(step) * (smallest - threshold.value)
        begun = jnp.asarray(step) >= self.begin
        threshold.value = jnp.where(begun, moved, threshold.value)
        return code

    def _rows(
        self, inputs: Array, norms: Array | None, count: int | Array, room: int
    ) -> tuple[SparseCode, Array]:
        """Computes the code of a training batch as `Rows`, and the scores of its values."""
        size = inputs.shape[0]
        kernel, bias = self.encode(inputs.shape[-1])
        stopped = jax.lax.stop_gradient(inputs), jax.lax.stop_gradient(kernel)
        product = encode.project(stopped[0], stopped[1], self.dtype)
        slots = in_rows(largest_of_batch(product, bias, norms, count, room), size, room)
        indices, example = slots.indices, slots.example
        taken = product.at[example[:, None], indices].get(mode="promise_in_bounds")
        own = jnp.take(inputs, example, axis=0)
        values = nn.relu(encode.encode_at(taken, own, kernel, bias, indices, self.dtype))
        values = jnp.where(slots.used, values, 0.0)
        rows = Rows(values, indices, self.latents, example, size)
        active = rows.per_example(jnp.sum(values > 0, axis=-1))
        score = jax.lax.stop_gradient(values)
        score = score if norms is None else score * jnp.take(norms, indices)
        return SparseCode(rows, active.astype(jnp.float32)), score

    def _masked(
        self, inputs: Array, norms: Array | None, count: int | Array
    ) -> tuple[SparseCode, Array]:
        """Computes the code of a training batch in the dense form, and the scores of its values."""
        pre = self.project(inputs)
        values = nn.relu(pre)
        score = jax.lax.stop_gradient(values if norms is None else values * norms[None])
        cut = score < kth_of_all(score, count)  # False for a NaN, which must stay visible in z
        z = jnp.where(cut, 0.0, values)
        l0 = jnp.sum(z > 0, axis=-1).astype(jnp.float32)
        return SparseCode(z, l0, projected=pre), jnp.where(cut, 0.0, score)

    def _rate(self, step: Any) -> Any:
        """Returns the weight of step `step` in the threshold's moving average.

        The threshold grows fast at first, so a mean with equal weights over all steps so far would
        be too small.
        """
        if self.from_zero:
            return self.rate
        before = jnp.maximum(jnp.asarray(step, jnp.float32) - self.begin, 0.0)
        return jnp.maximum(10.0 / (before + 10.0), self.rate)

    def plain(self, params: Mapping[str, Any], memory: Any, norms: Array) -> dict[str, Any]:
        """Returns the fields of Plain that describe the encoder as a JumpReLU, without W_enc.

        The threshold of scores is converted to one threshold of pre-activations for each latent.
        """
        threshold = jnp.full((self.latents,), memory["threshold"])
        return {
            "activation": JumpReLU.kind,
            "b_enc": params["encode"]["bias"],
            "threshold": threshold / norms if self.score_by_norm else threshold,
        }

    def _count(self, size: int) -> tuple[int | Array, int]:
        """Returns how many latents are kept in a batch of `size` examples, and room for how many.

        The arrays of the code have this room; the number kept may be traced, and smaller.
        """
        if isinstance(self.k, jax.Array):
            if self.slots is None:
                raise UserError(
                    "BatchTopK has a traced k but no slots, so the shape of its arrays is unknown: "
                    f"give the largest k as slots, as in BatchTopK({self.latents}, k, slots=32)"
                )
            return jnp.round(self.k * size).astype(jnp.int32), self.slots * size
        count = round(self.k * size)
        if count < 1:
            raise UserError(
                f"BatchTopK has k = {self.k}, which keeps no latent of a batch of {size}: give a "
                "larger k, or larger batches"
            )
        room = count if self.slots is None else self.slots * size
        if count > room:
            raise UserError(
                f"BatchTopK has k = {self.k}, more than its slots, {self.slots}: give more slots"
            )
        return count, room


class Slots(NamedTuple):
    """The chosen latents of a batch in C rows of w slots; an example fills one or more rows."""

    indices: Array  # i32[C, w], the index of the latent in each slot
    used: Array  # bool[C, w], False for slots that remain empty
    example: Array  # i32[C], the example of each row, in ascending order


def in_rows(found: Found, size: int, room: int) -> Slots:
    """Arranges the chosen latents in rows of w slots, where each row belongs to one example.

    The width w is a compromise: processing a row costs about as much time as two slots, and up to
    w - 1 slots of each example stay empty. The time is least if w is about the square root of twice
    the mean number of latents per example.

    Args:
      found: the chosen latents of all examples, ordered by example.
      size: the number of examples B.
      room: the length of the arrays in `found`, the largest number of chosen latents.
    """
    width = 2 ** max(0, round(math.log2(2 * room / size) / 2))
    rows = min(room, (room + size * (width - 1)) // width)  # enough for the worst batch
    rows = -(-rows // 8) * 8  # rounded up to a multiple of 8, so that blocks of 8 rows are full

    # Entries beyond `count` were not chosen; they get the index of an example that does not exist.
    owner = jnp.where(jnp.arange(room) < found.count, found.row, size)
    ends = jnp.searchsorted(owner, jnp.arange(size, dtype=jnp.int32), side="right")
    begins = jnp.concatenate([jnp.zeros((1,), ends.dtype), ends[:-1]])
    needed = (ends - begins + width - 1) // width
    last = jnp.cumsum(needed)
    row = jnp.arange(rows, dtype=jnp.int32)
    example = jnp.searchsorted(last, row, side="right").astype(jnp.int32)
    example = jnp.minimum(example, size - 1)  # unused rows at the end need a valid index too
    before = jnp.take(last - needed, example)
    entry = jnp.take(begins, example) + width * (row - before)
    entry = entry[:, None] + jnp.arange(width, dtype=jnp.int32)[None]
    used = entry < jnp.take(ends, example)[:, None]
    indices = jnp.take(found.column, jnp.minimum(entry, room - 1))
    return Slots(indices, used, example)
