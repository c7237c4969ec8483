"""Dictionaries in a language model: edits that reconstruct a value or change its latents.

    replace(dictionary)                          # the hook's value becomes its reconstruction
    clamp(dictionary, latents=[17], values=8.0)  # a latent is set
    scale(dictionary, latents=[17], factor=0.0)  # a latent is switched off
    latents(dictionary, value)                   # f32[B, P, m] of values f[B, P, D]

A dictionary is the `Plain` of any trained or loaded sparse autoencoder, which takes raw inputs. An
edit of latents computes x + decode(edited) - decode(original) as x + (edited - original) W_dec: the
bias, a skip connection and the dictionary's own error cancel, and an edit that changes no latent
adds exactly zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from aejax.dictionaries.plain import Plain, decode, encode, output_scale
from aejax.errors import UserError
from aejax.language.taps import Edit
from aejax.types import Array

# A function (codes f32[N, m], position i32[N]) -> codes f32[N, m], as a pytree such as Partial.
Change: TypeAlias = Callable[[Array, Array], Array]


def replace(dictionary: Plain) -> Edit:
    """Replaces each value by the dictionary's reconstruction of it.

    Args:
      dictionary: a dictionary of values of the hook's width.
    """
    form, weights = _taken_apart(dictionary)
    return Partial(_Replace(form), weights)


def change(dictionary: Plain, edit: Change) -> Edit:
    """Applies a pure function to the latents: x + decode(edit(codes)) - decode(codes).

    Args:
      dictionary: a dictionary of values of the hook's width.
      edit: a function (codes f32[N, m], position i32[N]) -> codes f32[N, m], as a pytree such as
        Partial.
    """
    form, weights = _taken_apart(dictionary)
    return Partial(_Change(form), weights, edit)


def clamp(dictionary: Plain, latents: Sequence[int], values: Any) -> Edit:
    """Sets latents to fixed values, whether they are active or not.

    Args:
      dictionary: a dictionary of values of the hook's width.
      latents: the indices of the latents, counted from 0.
      values: one value for all of them, or one for each.

    Raises:
      UserError: if a latent does not exist or is named twice, or the number of values is wrong.
    """
    return _columns(dictionary, latents, values, _clamp)


def scale(dictionary: Plain, latents: Sequence[int], factor: Any) -> Edit:
    """Multiplies latents by fixed factors; a factor of 0 switches a latent off.

    Args:
      dictionary: a dictionary of values of the hook's width.
      latents: the indices of the latents, counted from 0.
      factor: one factor for all of them, or one for each.

    Raises:
      UserError: if a latent does not exist or is named twice, or the number of factors is wrong.
    """
    return _columns(dictionary, latents, factor, _scale)


def latents(dictionary: Plain, value: Array) -> Array:
    """Encodes values f[B, P, D] to latents f32[B, P, m].

    Raises:
      UserError: if the dictionary has another width than the values.
    """
    check_width(dictionary, value)
    codes = encode(dictionary, _rows(value))
    return codes.reshape(*value.shape[:-1], -1)


def check_width(dictionary: Plain, value: Any) -> None:
    """Checks that the dictionary's inputs and outputs have the width of a value f[B, P, D].

    Raises:
      UserError: if they do not; it names both widths.
    """
    reads, writes = dictionary.W_enc.shape[0], dictionary.W_dec.shape[1]
    if value.ndim != 3 or (reads, writes) != (value.shape[-1],) * 2:
        raise UserError(
            f"the dictionary reads {reads} numbers and writes {writes}, but the hook has values of "
            f"shape {value.shape}: give a dictionary that was trained on this hook"
        )


def _rows(value: Array) -> Array:
    return value.reshape(-1, value.shape[-1]).astype(jnp.float32)


def _columns(dictionary: Plain, latents: Sequence[int], numbers: Any, how: Any) -> Edit:
    """Makes an edit of a few latents, which reads only their rows of the decoder."""
    columns = np.asarray(latents, np.int64).reshape(-1)
    for column in columns.tolist():
        if not 0 <= column < dictionary.latents:
            raise UserError(
                f"there is no latent {column}: the dictionary has 0 to {dictionary.latents - 1}"
            )
    if len(set(columns.tolist())) < len(columns):
        raise UserError(f"latents {columns.tolist()} name one more than once: name each one once")
    given = np.asarray(numbers, np.float32)
    if given.shape not in ((), columns.shape):
        raise UserError(
            f"{given.size} numbers for {len(columns)} latents: give one number for all of them, or "
            "one for each"
        )
    form, weights = _taken_apart(dictionary)
    each = jnp.asarray(np.broadcast_to(given, columns.shape))
    return Partial(_Columns(form, how), weights, jnp.asarray(columns, jnp.int32), each)


def _clamp(codes: Array, values: Array) -> Array:
    return jnp.broadcast_to(values[None], codes.shape)


def _scale(codes: Array, factors: Array) -> Array:
    return codes * factors[None]


# A Plain has arrays (its weights), which are inputs of a compiled program, and other fields (its
# form), which are static: another form is compiled anew.
Form: TypeAlias = tuple[tuple[str, Any], ...]
Weights: TypeAlias = dict[str, Array]


def _taken_apart(dictionary: Plain) -> tuple[Form, Weights]:
    """Divides a dictionary into its hashable fields and its arrays."""
    fields = dictionary._asdict()
    arrays = {name: jnp.asarray(v) for name, v in fields.items() if hasattr(v, "ndim")}
    facts = tuple((name, v) for name, v in fields.items() if name not in arrays)
    return facts, arrays


def _together(form: Form, weights: Weights) -> Plain:
    fields: dict[str, Any] = {**dict(form), **weights}
    return Plain(**fields)


@dataclasses.dataclass(frozen=True)
class _Replace:
    form: Form

    def __call__(self, weights: Weights, value: Array, position: Array) -> Array:
        del position
        dictionary = _together(self.form, weights)
        check_width(dictionary, value)
        rows = _rows(value)
        new = decode(dictionary, encode(dictionary, rows), rows)
        return new.reshape(value.shape).astype(value.dtype)


@dataclasses.dataclass(frozen=True)
class _Change:
    form: Form

    def __call__(self, weights: Weights, edit: Change, value: Array, position: Array) -> Array:
        dictionary = _together(self.form, weights)
        check_width(dictionary, value)
        codes = encode(dictionary, _rows(value))
        difference = edit(codes, position.reshape(-1)) - codes
        return _added(dictionary, value, difference @ dictionary.W_dec)


@dataclasses.dataclass(frozen=True)
class _Columns:
    form: Form
    how: Callable[[Array, Array], Array]

    def __call__(
        self, weights: Weights, columns: Array, numbers: Array, value: Array, position: Array
    ) -> Array:
        del position
        dictionary = _together(self.form, weights)
        check_width(dictionary, value)
        codes = jnp.take(encode(dictionary, _rows(value)), columns, axis=1)
        difference = self.how(codes, numbers) - codes
        return _added(dictionary, value, difference @ jnp.take(dictionary.W_dec, columns, axis=0))


def _added(dictionary: Plain, value: Array, difference: Array) -> Array:
    """Adds a difference of reconstructions f32[N, D], after scaling it as each row's output is."""
    scaled = difference * output_scale(dictionary, _rows(value))
    return (value + scaled.reshape(value.shape)).astype(value.dtype)
