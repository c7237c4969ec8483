"""Dictionaries in a language model: edits that reconstruct a value or change its latents.

    replace(dictionary)                          # the hook's value becomes its reconstruction
    clamp(dictionary, latents=[17], values=8.0)  # a latent is set
    scale(dictionary, latents=[17], factor=0.0)  # a latent is switched off
    latents(dictionary, value)                   # f32[B, P, m] of values f[B, P, D]

A dictionary is the `Plain` of any trained or loaded sparse autoencoder, which takes raw inputs. An
edit of latents computes x + decode(edited) - decode(original) as x + (edited - original) W_dec: the
bias, a skip connection and the dictionary's own error cancel, and an edit that changes no latent
adds exactly zero.

A transcoder reads one hook and writes another. Its edit is placed at the hook that it writes:

    edits = {"mlp_out.3": replace(transcoder, reads="mlp_in.3")}   # takes the place of the MLP

If a dictionary states what it was trained on (`Plain.source`), `reads` is not needed, and the
dictionary is refused at any other hook.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from aejax.dictionaries.plain import Plain, decode, encode, output_scale
from aejax.errors import UserError
from aejax.language.taps import At, Edit, MadeFor
from aejax.language.trained import hook_name
from aejax.types import Array

# A function (codes f32[N, m], position i32[N]) -> codes f32[N, m], as a pytree such as Partial.
Change: TypeAlias = Callable[[Array, Array], Array]


def replace(dictionary: Plain, *, reads: str | None = None) -> Edit:
    """Replaces each value by the dictionary's reconstruction of it.

    Args:
      dictionary: a dictionary of values of the hook's width.
      reads: the hook whose values the dictionary encodes. None means the edited hook, or, if the
        dictionary states that it is a transcoder, the hook that it was trained to read.

    Raises:
      UserError: if the dictionary states that it was trained to read another hook than `reads`.
    """
    form, weights = _taken_apart(dictionary)
    return Partial(_Replace(form), weights, _places(dictionary, reads))


def change(dictionary: Plain, edit: Change, *, reads: str | None = None) -> Edit:
    """Applies a pure function to the latents: x + decode(edit(codes)) - decode(codes).

    Args:
      dictionary: a dictionary of values of the hook's width.
      edit: a function (codes f32[N, m], position i32[N]) -> codes f32[N, m], as a pytree such as
        Partial.
      reads: as for `replace`.

    Raises:
      UserError: as for `replace`.
    """
    form, weights = _taken_apart(dictionary)
    return Partial(_Change(form), weights, _places(dictionary, reads), edit)


def clamp(
    dictionary: Plain, latents: Sequence[int], values: Any, *, reads: str | None = None
) -> Edit:
    """Sets latents to fixed values, whether they are active or not.

    Args:
      dictionary: a dictionary of values of the hook's width.
      latents: the indices of the latents, counted from 0.
      values: one value for all of them, or one for each.
      reads: as for `replace`.

    Raises:
      UserError: if a latent does not exist or is named twice, the number of values is wrong, or as
        for `replace`.
    """
    return _columns(dictionary, latents, values, reads, _clamp)


def scale(
    dictionary: Plain, latents: Sequence[int], factor: Any, *, reads: str | None = None
) -> Edit:
    """Multiplies latents by fixed factors; a factor of 0 switches a latent off.

    Args:
      dictionary: a dictionary of values of the hook's width.
      latents: the indices of the latents, counted from 0.
      factor: one factor for all of them, or one for each.
      reads: as for `replace`.

    Raises:
      UserError: if a latent does not exist or is named twice, the number of factors is wrong, or as
        for `replace`.
    """
    return _columns(dictionary, latents, factor, reads, _scale)


def latents(dictionary: Plain, value: Array) -> Array:
    """Encodes values f[B, P, D] to latents f32[B, P, m].

    Raises:
      UserError: if the dictionary has another width than the values.
    """
    _check_width("reads", dictionary.W_enc.shape[0], value)
    codes = encode(dictionary, _rows(value))
    return codes.reshape(*value.shape[:-1], -1)


def _check_width(verb: str, size: int, value: Any) -> None:
    """Raises UserError if a value is not f[B, P, size]."""
    if value.ndim != 3 or value.shape[-1] != size:
        raise UserError(
            f"the dictionary {verb} {size} numbers, but the hook has values of shape "
            f"{value.shape}: give a dictionary that was trained on this hook"
        )


class Places(NamedTuple):
    """The hooks of a dictionary in a model."""

    reads: Any  # None: the edited hook; another is an At, which a pass replaces by its f[B, P, D]
    writes: MadeFor | None  # None: any hook of the right width


OTHERWISE = (
    "take a dictionary of this hook, or, if its record is wrong, dictionary._replace(source=None)"
)


def _places(dictionary: Plain, reads: str | None) -> Places:
    """Returns the hook that a dictionary reads and the only one at which its edit is allowed."""
    source = dictionary.source
    trained = None if source is None or source.reads is None else hook_name(source.reads)
    if source is None or trained is None:
        return Places(None if reads is None else At(reads), None)
    writes = trained if source.writes is None else hook_name(source.writes)
    if reads is not None and reads != trained:
        raise UserError(f"the dictionary was trained to read {trained}, not {reads}: {OTHERWISE}")
    return Places(
        None if writes == trained else At(trained),
        None if writes is None else MadeFor(writes, OTHERWISE),
    )


def _rows(value: Array) -> Array:
    return value.reshape(-1, value.shape[-1]).astype(jnp.float32)


def _columns(
    dictionary: Plain, latents: Sequence[int], numbers: Any, reads: str | None, how: Any
) -> Edit:
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
    places = _places(dictionary, reads)
    return Partial(_Columns(form, how), weights, places, jnp.asarray(columns, jnp.int32), each)


def _clamp(codes: Array, values: Array) -> Array:
    return jnp.broadcast_to(values[None], codes.shape)


def _scale(codes: Array, factors: Array) -> Array:
    return codes * factors[None]


# A Plain has arrays (its weights), which are inputs of a compiled program, and other fields (its
# form), which are static: another form is compiled anew. The weights are a Plain that has None in
# place of those fields.
Form: TypeAlias = tuple[Any, tuple[Any, ...]]


def _taken_apart(dictionary: Plain) -> tuple[Form, Plain]:
    """Divides a dictionary into its hashable form and its weights."""

    def fixed(value: Any) -> Any:
        return None if hasattr(value, "ndim") else value

    def array(value: Any) -> Any:
        return jnp.asarray(value) if hasattr(value, "ndim") else None

    dictionary = dictionary._replace(source=None)
    leaves, tree = jax.tree.flatten(jax.tree.map(fixed, dictionary))
    return (tree, tuple(leaves)), jax.tree.map(array, dictionary)


def _together(form: Form, weights: Plain) -> Plain:
    """Puts a dictionary together again."""
    return jax.tree.map(
        lambda fixed, array: array if fixed is None else fixed,
        jax.tree.unflatten(*form),
        weights,
        is_leaf=lambda value: value is None,
    )


def _read(dictionary: Plain, places: Places, value: Array) -> Array:
    """Returns the rows f32[N, d] that the dictionary encodes where it writes `value`."""
    read = value if places.reads is None else places.reads
    if isinstance(read, At):
        raise UserError(f"this edit reads {read.hook}, so it works only in the pass of a model")
    _check_width("reads", dictionary.W_enc.shape[0], read)
    _check_width("writes", dictionary.W_dec.shape[1], value)
    return _rows(read)


@dataclasses.dataclass(frozen=True)
class _Replace:
    form: Form

    def __call__(self, weights: Plain, places: Places, value: Array, position: Array) -> Array:
        del position
        dictionary = _together(self.form, weights)
        rows = _read(dictionary, places, value)
        new = decode(dictionary, encode(dictionary, rows), rows)
        return new.reshape(value.shape).astype(value.dtype)


@dataclasses.dataclass(frozen=True)
class _Change:
    form: Form

    def __call__(
        self, weights: Plain, places: Places, edit: Change, value: Array, position: Array
    ) -> Array:
        dictionary = _together(self.form, weights)
        rows = _read(dictionary, places, value)
        codes = encode(dictionary, rows)
        difference = edit(codes, position.reshape(-1)) - codes
        return _added(dictionary, rows, value, difference @ dictionary.W_dec)


@dataclasses.dataclass(frozen=True)
class _Columns:
    form: Form
    how: Callable[[Array, Array], Array]

    def __call__(
        self,
        weights: Plain,
        places: Places,
        columns: Array,
        numbers: Array,
        value: Array,
        position: Array,
    ) -> Array:
        del position
        dictionary = _together(self.form, weights)
        rows = _read(dictionary, places, value)
        codes = jnp.take(encode(dictionary, rows), columns, axis=1)
        difference = self.how(codes, numbers) - codes
        atoms = jnp.take(dictionary.W_dec, columns, axis=0)
        return _added(dictionary, rows, value, difference @ atoms)


def _added(dictionary: Plain, rows: Array, value: Array, difference: Array) -> Array:
    """Adds a difference of reconstructions f32[N, D], after scaling it as each row's output is."""
    scaled = difference * output_scale(dictionary, rows)
    return (value + scaled.reshape(value.shape)).astype(value.dtype)
