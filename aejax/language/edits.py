"""Edits: pure functions that replace the activations at a hook, a named place in the model.

    edits = {"resid_post.15": add(4.0 * direction)}
    edits = {"mlp_out.3": zero(), "resid_mid.7": mean(store.hook("resid_mid.7").moments.mean)}
    edits = {"resid_post.9": only(replace(dictionary), positions=(1, 2, 3))}
    edits = {"resid_post.9": clamp(dictionary, [17, 4093], 8.0)}
    edits = {"attn_out.5": patch(other.seen["attn_out.5"])}

    generate(model, variables, prompts, count=32, edits=edits)

An edit is called as edit(value, position), with the value f[B, P, ...] at the hook and the position
i32[B, P] of each token in its text (-1 for padding). When text is generated with a cache, a pass
sees only the new token, and the position is still that in the whole text.

Any pure function (value, position) -> value can be an edit. If it needs arrays of its own, define
function(*arrays, value, position) and use the edit `jax.tree_util.Partial(function, *arrays)`,
which is a pytree: the arrays are inputs of the compiled program, which therefore is not compiled
again for other arrays of the same shapes. The edits that use a dictionary are in `splicing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.tree_util import Partial

from aejax.errors import UserError
from aejax.language.taps import Edit
from aejax.types import Array


def add(direction: Any) -> Edit:
    """Returns an edit that adds a direction to every token's value.

    Args:
      direction: f[D], or f[B, 1, D] with one direction for each text.
    """
    return Partial(_add, jnp.asarray(direction))


def zero() -> Edit:
    """Returns an edit that replaces every value by 0 (zero ablation)."""
    return Partial(_zero)


def mean(value: Any) -> Edit:
    """Returns an edit that replaces the values of all tokens by one value (mean ablation).

    Args:
      value: f[D], such as the mean over a data set.
    """
    return Partial(_mean, jnp.asarray(value))


def patch(value: Any) -> Edit:
    """Returns an edit that inserts the values of another forward pass (activation patching).

    Each token's value is replaced by the value that the other pass had at the same position.

    Args:
      value: the values of the other pass at this hook, f[B, Q, D], or f[1, Q, D] for all texts,
        without padding. Tokens at position Q and later keep their values.
    """
    return Partial(_patch, jnp.asarray(value))


def only(
    edit: Edit, *, texts: Sequence[int] | None = None, positions: Sequence[int] | None = None
) -> Edit:
    """Returns an edit that changes some tokens only; the others keep bitwise the same values.

    Args:
      edit: the edit to apply.
      texts: the indices of the batch's texts to edit, from 0; None: all texts.
      positions: the positions of the tokens to edit in each text, from 0; None: all positions.
    """
    chosen = [None if v is None else jnp.asarray(v, jnp.int32) for v in (texts, positions)]
    return Partial(_only, edit, *chosen)


def chain(*edits: Edit) -> Edit:
    """Returns an edit that applies several edits, one after the other."""
    return Partial(_chain, edits)


def _add(direction: Array, value: Array, position: Array) -> Array:
    del position
    return value + _wide(direction, value).astype(value.dtype)


def _zero(value: Array, position: Array) -> Array:
    del position
    return jnp.zeros_like(value)


def _mean(mean: Array, value: Array, position: Array) -> Array:
    del position
    return jnp.broadcast_to(_wide(mean, value), value.shape).astype(value.dtype)


def _wide(vector: Array, value: Array) -> Array:
    """Reshapes a vector f[D] to f[1, 1, D]; vectors for each text, f[B, 1, D], stay unchanged."""
    given = vector[None, None] if vector.ndim == 1 else vector
    whole = given.ndim == value.ndim == 3 and given.shape[2] == value.shape[2]
    if not whole or given.shape[0] not in (1, value.shape[0]) or given.shape[1] != 1:
        raise UserError(
            f"a vector of shape {vector.shape} was given, but the values have shape "
            f"{value.shape}: give a vector of {value.shape[-1]} numbers, or one for each text, "
            "f[B, 1, D]"
        )
    return given


def _patch(other: Array, value: Array, position: Array) -> Array:
    if value.ndim != 3 or other.ndim != 3 or other.shape[2] != value.shape[2]:
        raise UserError(
            f"the values to patch in have shape {other.shape}, but those at the hook have shape "
            f"{value.shape}: give f[B, Q, D] with the hook's D (attn_pattern cannot be patched)"
        )
    if other.shape[0] not in (1, value.shape[0]):
        raise UserError(
            f"the values to patch in are of {other.shape[0]} texts, but the batch has "
            f"{value.shape[0]}: give the values of 1 text or of {value.shape[0]}"
        )
    other = jnp.broadcast_to(other, (value.shape[0], *other.shape[1:]))
    inside = (position >= 0) & (position < other.shape[1])
    where = jnp.clip(position, 0, other.shape[1] - 1)[..., None]
    new = jnp.take_along_axis(other, where, axis=1)
    return jnp.where(inside[..., None], new.astype(value.dtype), value)


def _only(
    edit: Edit, texts: Array | None, positions: Array | None, value: Array, position: Array
) -> Array:
    here = jnp.ones(position.shape, bool)
    if texts is not None:
        here &= jnp.isin(jnp.arange(value.shape[0]), texts)[:, None]
    if positions is not None:
        here &= jnp.isin(position, positions)
    return _where(here, edit(value, position), value)


def _where(here: Array, new: Array, value: Array) -> Array:
    if value.ndim == 4:  # attn_pattern, f[B, H, P, S]
        return jnp.where(here[:, None, :, None], new, value)
    return jnp.where(here[..., None], new, value)


def _chain(edits: tuple[Edit, ...], value: Array, position: Array) -> Array:
    for edit in edits:
        value = edit(value, position)
    return value
