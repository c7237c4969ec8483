"""Top-k of x W + b in one operation, whose backward pass uses only the k selected latents."""

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
    """Finds the k entries of each row of x W + b with the highest scores, highest first.

    Args:
      x: f32[B, D].
      kernel: W, f32[D, m].
      bias: b, f32[m]; -inf excludes a latent.
      k: the number of latents to select.
      norms: f32[m], positive: the scores are (x W + b) * norms; None: the scores are x W + b.
      dtype: the dtype of the factors of x W, which is summed in float32; None: float32.
      recall: the expected share of the k largest that is found (see `select.largest`); None: all.

    Returns:
      The values f32[B, k] of x W + b, and their indices i32[B, k].
    """
    # Gradients flow through `encode_at` only, not through this product of all latents.
    product = project(jax.lax.stop_gradient(x), jax.lax.stop_gradient(kernel), dtype)
    indices = largest(product, bias, norms, k, recall)
    taken = jnp.take_along_axis(product, indices, axis=1, mode="promise_in_bounds")
    return encode_at(taken, x, kernel, bias, indices, dtype), indices


def project(x: Array, kernel: Array, dtype: Any = None) -> Array:
    """Computes x W, f32[B, m]; the factors have `dtype`, and sums are in float32."""
    dtype = dtype or jnp.float32
    return jnp.matmul(x.astype(dtype), kernel.astype(dtype), preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def encode_at(
    taken: Array, x: Array, kernel: Array, bias: Array, indices: Array, dtype: Any = None
) -> Array:
    """Adds b to x W at chosen latents; the backward pass computes only with these latents.

    Args:
      taken: x W at the chosen latents, f32[B, k]; gradients flow to x and kernel, not to `taken`.
      x: f32[B, D].
      kernel: W, f32[D, m].
      bias: b, f32[m].
      indices: the chosen latents, i32[B, k].
      dtype: the dtype of the factors in the product `taken`.

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
