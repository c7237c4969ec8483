"""Exact top-k of each row: several implementations, of which the fastest is chosen."""

from __future__ import annotations

import functools
import inspect

import jax
import jax.numpy as jnp

from aejax.kernels.table import chosen
from aejax.types import Array


def largest(
    product: Array, bias: Array, norms: Array | None, k: int, recall: float | None = None
) -> Array:
    """Returns the indices of the k largest of (product + bias) * norms in each row, largest first.

    Ties are broken arbitrarily, except that the implementation "whole" chooses the lowest index.

    Args:
      product: f32[B, m].
      bias: f32[m]; -inf excludes a column.
      norms: f32[m], positive; None: all 1.
      k: the number of indices, at most m.
      recall: the expected share of the k largest that `lax.approx_max_k` finds; it is faster than
        exact selection on TPUs only. None: the selection is exact.

    Returns:
      i32[B, k]; it has no gradient.
    """
    product, bias = jax.lax.stop_gradient((product, bias))
    norms = jnp.ones_like(bias) if norms is None else jax.lax.stop_gradient(norms)
    if recall is not None:
        score = (product + bias[None]) * norms[None]
        return jax.lax.approx_max_k(score, k, recall_target=recall)[1]
    forms = {name: functools.partial(form, k=k) for name, form in forms_for(bias.size, k).items()}
    return chosen("largest", (product.shape[0], k, bias.size), forms, product, bias, norms)


def forms_for(columns: int, k: int) -> dict:
    """Returns name -> implementation of top-k, for those that support these columns and k."""
    forms = {"any order of ties": _unstable} if STABLE_IS_ASKED_FOR else {}
    forms["whole"] = _whole
    for members in MEMBERS:
        if columns % members == 0 and columns // members >= k:
            name = f"groups of {members}"
            forms[name] = functools.partial(_grouped, members=members)
    return forms


MEMBERS = (8, 16, 32, 64)  # the group sizes for which there is an implementation
# Whether `lax.top_k` has the argument `is_stable`, which jax 0.11 added. On GPUs its fast
# algorithms need is_stable=False, because they do not preserve the order of ties.
STABLE_IS_ASKED_FOR = "is_stable" in inspect.signature(jax.lax.top_k).parameters


def _whole(product: Array, bias: Array, norms: Array, k: int) -> Array:
    return jax.lax.top_k((product + bias[None]) * norms[None], k)[1]


def _unstable(product: Array, bias: Array, norms: Array, k: int) -> Array:
    score = (product + bias[None]) * norms[None]
    return jax.lax.top_k(score, k, is_stable=False)[1]  # pyright: ignore[reportCallIssue]


def _grouped(product: Array, bias: Array, norms: Array, k: int, members: int) -> Array:
    """Finds the k groups of columns with the largest maxima, then the k largest values in these.

    The k largest values of a row are in the k groups with the largest maxima. If a group has w
    columns, group g has the columns j m / w + g for j = 0, ..., w - 1, so that vector operations
    can compute all maxima in one pass.
    """
    size, columns = product.shape
    groups = columns // members

    def score(j: int) -> Array:
        part = slice(j * groups, (j + 1) * groups)
        return (product[:, part] + bias[None, part]) * norms[None, part]

    maxima = functools.reduce(jnp.maximum, (score(j) for j in range(members)))
    top, found = _front(maxima, k)
    column = found[:, :, None] + groups * jnp.arange(members, dtype=jnp.int32)[None, None]
    flat = column.reshape(size, k * members)
    held = jnp.take_along_axis(product, flat, axis=1, mode="promise_in_bounds")
    held = (held + jnp.take(bias, flat)) * jnp.take(norms, flat)
    return _merge(top, held.reshape(size, k, members), column, k)


def _front(values: Array, k: int) -> tuple[Array, Array]:
    """Computes lax.top_k of values f32[B, G], in groups of 8 if there are k or more groups."""
    size, columns = values.shape
    groups = columns // 8
    if columns % 8 or groups < k:
        top, found = jax.lax.top_k(values, k)
        return top, found
    maxima = functools.reduce(
        jnp.maximum, (values[:, j * groups : (j + 1) * groups] for j in range(8))
    )
    top, found = jax.lax.top_k(maxima, k)
    column = found[:, :, None] + groups * jnp.arange(8, dtype=jnp.int32)[None, None]
    held = jnp.take_along_axis(values, column.reshape(size, k * 8), axis=1)
    chosen_columns = _merge(top, held.reshape(size, k, 8), column, k)
    return jnp.take_along_axis(values, chosen_columns, axis=1), chosen_columns


def _merge(top: Array, held: Array, column: Array, k: int) -> Array:
    """Returns the columns of the k largest values of `held` in each row.

    On CPUs `lax.top_k` keeps a heap of the k largest values so far. If the maxima of the groups
    come first, few of them are replaced later, which is several times faster than any other order.

    Args:
      top: the maxima of k groups, f32[B, k], largest first.
      held: the values in these groups, f32[B, k, w].
      column: the columns of these values, i32[B, k, w].
      k: the number of columns to return.

    Returns:
      i32[B, k], largest first.
    """
    size, _, members = held.shape
    own = jnp.argmax(held, axis=-1).astype(jnp.int32)
    others = jnp.arange(members, dtype=jnp.int32)[None, None] != own[:, :, None]
    rest = jnp.where(others, held, -jnp.inf).reshape(size, k * members)
    _, place = jax.lax.top_k(jnp.concatenate([top, rest], axis=1), k)
    owners = jnp.take_along_axis(column, own[:, :, None], axis=2)[:, :, 0]
    columns = jnp.concatenate([owners, column.reshape(size, k * members)], axis=1)
    return jnp.take_along_axis(columns, place, axis=1)
