"""The k-th largest value of each row or of a whole matrix, as the dense form of sparse codes needs.

The matrix may be divided over the devices of a mesh along both axes: only counts or a few
candidates of each row are exchanged.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from aejax.kernels.mask import floats, ordered
from aejax.kernels.platform import shards_of_latents
from aejax.types import Array

BITS = 4  # the bits of the result that one pass over the values determines
# For up to this k the compiler of TPUs makes `lax.top_k` one call; for larger k it sorts the rows.
FEW = 128


def kth_of_rows(
    values: Array, k: int, active: int | Array | None = None, recall: float | None = None
) -> Array:
    """Returns the k-th largest value of each row, f32[B, 1]; it has no gradient.

    Args:
      values: f32[B, m]; NaN counts as larger than all numbers.
      k: 1 to m.
      active: the number whose largest value is wanted instead, 1 to k; it may be traced.
      recall: the expected share of the k largest that `lax.approx_max_k` finds; the result is then
        the k-th largest of those found. None: the result is exact.
    """
    values = jax.lax.stop_gradient(values)
    if k > FEW and recall is None:
        return _counted(values, k if active is None else active, 1)

    def best(values: Array) -> Array:
        few = min(k, values.shape[1])
        if recall is None:
            return jax.lax.top_k(values, few)[0]
        return jax.lax.approx_max_k(values, few, recall_target=recall)[0]

    axis = shards_of_latents(values.shape[1])
    if axis is None:
        found = best(values)
    else:
        # Each device finds the candidates among its own latents; without this, all scores of all
        # devices would be gathered.
        def gathered(values: Array) -> Array:
            own = jax.lax.all_gather(best(values), axis, axis=1, tiled=True)
            return jax.lax.top_k(own, k)[0]

        spec, whole = PartitionSpec(None, axis), PartitionSpec(None, None)
        found = jax.shard_map(
            gathered, in_specs=spec, out_specs=whole, axis_names={axis}, check_vma=False
        )(values)
    if active is None:
        return found[:, k - 1 :]
    last = jnp.ceil(jnp.asarray(active, jnp.float32)).astype(jnp.int32) - 1
    return jax.lax.dynamic_slice_in_dim(found, last, 1, axis=1)


def kth_of_all(values: Array, k: int | Array) -> Array:
    """Returns the k-th largest of all values, f32[1, 1]; it has no gradient.

    Args:
      values: f32[B, m]; NaN counts as larger than all numbers.
      k: 1 to B m, a number or i32[].
    """
    return _counted(jax.lax.stop_gradient(values), k, (0, 1))


def _counted(values: Array, k: int | Array, axes: int | tuple[int, int]) -> Array:
    """Finds the result from its highest bits to its lowest, by counting.

    The floats are compared as integers of the same order. Each pass over the values counts how many
    reach each of 2^BITS - 1 candidates, so that a matrix is read 8 times and not 32 times.
    """
    order = ordered(values)
    least = jnp.iinfo(jnp.int32).min
    found = jnp.full_like(jnp.max(order, axis=axes, keepdims=True), least)
    for shift in range(32 - BITS, -1, -BITS):
        # The additions overflow only from the negative numbers to the positive ones.
        tried = [found + jnp.int32(_signed(j << shift)) for j in range(1, 2**BITS)]
        reached = [
            jnp.sum(order >= t, axis=axes, keepdims=True, dtype=jnp.int32) >= k for t in tried
        ]
        steps = sum(one.astype(jnp.int32) for one in reached)
        found = found + (steps << shift)
    return floats(found)


def _signed(number: int) -> int:
    return number - 2**32 if number >= 2**31 else number
