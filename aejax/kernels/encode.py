"""Projection and selection as one operation: backward costs k rows of each example, not m."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from aejax.kernels.rows import combine, spread, transposed
from aejax.kernels.select import largest
from aejax.types import Array


def encode_topk(
    x: Array,
    kernel: Array,
    bias: Array,
    k: int,
    norms: Array | None = None,
    dtype: Any = None,
    recall: float | None = None,
) -> tuple[Array, Array]:
    """The k largest of x W + b in each row; exact unless `recall` is given, largest first.

    Args:
      x: f32[B, D]; its gradient is there, and nothing of it is computed where nobody reads it.
      kernel: f32[D, m], W.
      bias: f32[m], b; -inf takes a latent out.
      k: how many.
      norms: f32[m], positive: selects by (x W + b) * norms; None: by x W + b.
      dtype: of the product, which is summed in float32; None: float32.
      recall: the share of the k largest that is enough (see `select.largest`); None: all.

    Returns:
      values f32[B, k], of x W + b, and indices i32[B, k].
    """
    # Backward goes through `encode_at` alone.
    product = project(jax.lax.stop_gradient(x), jax.lax.stop_gradient(kernel), dtype)
    indices = largest(product, bias, norms, k, recall)
    taken = jnp.take_along_axis(product, indices, axis=1, mode="promise_in_bounds")
    return encode_at(taken, x, kernel, bias, indices, dtype), indices


def project(x: Array, kernel: Array, dtype: Any = None) -> Array:
    """x W, f32[B, m]: operands in `dtype`, sums in float32."""
    dtype = dtype or jnp.float32
    return jnp.matmul(x.astype(dtype), kernel.astype(dtype), preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def encode_at(
    taken: Array, x: Array, kernel: Array, bias: Array, indices: Array, dtype: Any = None
) -> Array:
    """x W + b at chosen latents only, where x W is at hand; backward sees the chosen ones alone.

    Args:
      taken: f32[B, k], x W at these latents; gets no gradient.
      x: f32[B, D].
      kernel: f32[D, m].
      bias: f32[m].
      indices: i32[B, k].
      dtype: that the product was taken in.

    Returns:
      f32[B, k].
    """
    return taken + jnp.take(bias, indices)


def _forward(taken, x, kernel, bias, indices, dtype):
    return encode_at(taken, x, kernel, bias, indices, dtype), (x, kernel, indices)


def _backward(dtype, saved, cotangent):
    x, kernel, indices = saved
    seen = x.astype(dtype or jnp.float32)
    d_bias = jnp.zeros((kernel.shape[1],), jnp.float32)
    d_bias = d_bias.at[indices.ravel()].add(cotangent.ravel(), mode="promise_in_bounds")
    d_kernel = transposed(spread(cotangent, indices, seen, kernel.shape[1]))
    with jax.named_scope("gradient_of_inputs"):
        d_x = combine(cotangent, indices, kernel.astype(dtype or jnp.float32).T)
    return None, d_x.astype(x.dtype), d_kernel.astype(kernel.dtype), d_bias, None


encode_at.defvjp(_forward, _backward)
