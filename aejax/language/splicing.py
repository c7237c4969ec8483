"""Dictionaries spliced into a language model: latents read, reconstructed and written.

    replace(dictionary)                          # the hook's value becomes its reconstruction
    clamp(dictionary, latents=[17], values=8.0)  # a latent is set
    scale(dictionary, latents=[17], factor=0.0)  # a latent is switched off
    latents(dictionary, value)                   # f32[B, P, m] of values f[B, P, D]

A dictionary is the `Plain` of any trained or loaded autoencoder on raw inputs. A latent is edited
as x + decode(edited) - decode(original), computed as x + (edited - original) W_dec: the bias, a
skip connection and the dictionary's own error cancel, and an edit that changes no latent adds an
exact zero.

A transcoder reads one hook and writes another, at which its edit is placed:

    edits = {"mlp_out.3": replace(transcoder, reads="mlp_in.3")}   # in place of the MLP

A dictionary that says what it was trained on (`Plain.source`) needs no `reads`, and is refused at
any other hook.
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

# (codes f32[N, m], position i32[N]) -> codes f32[N, m]; a pytree, such as a Partial.
Change: TypeAlias = Callable[[Array, Array], Array]


def replace(dictionary: Plain, *, reads: str | None = None) -> Edit:
    """What a dictionary makes of the value takes its place, its error included.

    Args:
      dictionary: of values of the hook's width.
      reads: the hook that the dictionary encodes; None: the edited one, or, if the dictionary says
        so, another.

    Raises:
      UserError: if the dictionary says that it was trained on another hook than `reads`.
    """
    form, weights = _taken_apart(dictionary)
    return Partial(_Replace(form), weights, _places(dictionary, reads))


def change(dictionary: Plain, edit: Change, *, reads: str | None = None) -> Edit:
    """Any pure function of the latents: x + decode(edit(codes)) - decode(codes).

    Args:
      dictionary: of values of the hook's width.
      edit: (codes f32[N, m], position i32[N]) -> codes f32[N, m], a pytree such as Partial.
      reads: as for `replace`.

    Raises:
      UserError: as for `replace`.
    """
    form, weights = _taken_apart(dictionary)
    return Partial(_Change(form), weights, _places(dictionary, reads), edit)


def clamp(
    dictionary: Plain, latents: Sequence[int], values: Any, *, reads: str | None = None
) -> Edit:
    """Sets latents, whether they are active or not.

    Args:
      dictionary: of values of the hook's width.
      latents: their numbers, from 0.
      values: a number for all of them, or one each.
      reads: as for `replace`.

    Raises:
      UserError: there is no such latent, the numbers are not one each, or as for `replace`.
    """
    return _columns(dictionary, latents, values, reads, _clamp)


def scale(
    dictionary: Plain, latents: Sequence[int], factor: Any, *, reads: str | None = None
) -> Edit:
    """Multiplies latents; by 0 they are switched off.

    Args:
      dictionary: of values of the hook's width.
      latents: their numbers, from 0.
      factor: a number for all of them, or one each.
      reads: as for `replace`.

    Raises:
      UserError: there is no such latent, the numbers are not one each, or as for `replace`.
    """
    return _columns(dictionary, latents, factor, reads, _scale)


def latents(dictionary: Plain, value: Array) -> Array:
    """The latents of values f[B, P, D], f32[B, P, m].

    Raises:
      UserError: the dictionary is of another width.
    """
    _check_width(dictionary, value, None)
    codes = encode(dictionary, _rows(value))
    return codes.reshape(*value.shape[:-1], -1)


def _check_width(dictionary: Plain, read: Any, written: Any) -> None:
    """Refuses a dictionary that reads or writes vectors of another width.

    Raises:
      UserError: names both widths.
    """
    sizes = (("reads", dictionary.W_enc.shape[0]), ("writes", dictionary.W_dec.shape[1]))
    for (verb, size), value in zip(sizes, (read, written), strict=True):
        if value is not None and (value.ndim != 3 or value.shape[-1] != size):
            raise UserError(
                f"the dictionary {verb} {size} numbers, but the hook has values of shape "
                f"{value.shape}: take a dictionary that was trained on this hook"
            )


def _places(dictionary: Plain, reads: str | None) -> Places:
    """Where the dictionary reads, if not at the edited hook, and at which hook it may stand."""
    source = dictionary.source
    trained = None if source is None or source.reads is None else hook_name(source.reads)
    if source is None or trained is None:
        return Places(None if reads is None else At(reads), None)
    writes = trained if source.writes is None else hook_name(source.writes)
    if reads is None and writes != trained:
        reads = trained
    if reads is not None and reads != trained:
        raise UserError(f"the dictionary reads {trained}, not {reads}: {OTHERWISE}")
    place = None if writes is None else MadeFor(writes, OTHERWISE)
    return Places(None if reads is None or writes == trained else At(reads), place)


def _rows(value: Array) -> Array:
    return value.reshape(-1, value.shape[-1]).astype(jnp.float32)


def _columns(
    dictionary: Plain, latents: Sequence[int], numbers: Any, reads: str | None, how: Any
) -> Edit:
    """The edit of some latents, of which only these rows of the decoder are read."""
    columns = np.asarray(latents, np.int64).reshape(-1)
    for column in columns.tolist():
        if not 0 <= column < dictionary.latents:
            raise UserError(
                f"there is no latent {column}: the dictionary has 0 to {dictionary.latents - 1}"
            )
    if len(set(columns.tolist())) < len(columns):
        raise UserError(f"latents {columns.tolist()} name one more than once")
    given = np.asarray(numbers, np.float32)
    if given.shape not in ((), columns.shape):
        raise UserError(f"{given.size} numbers for {len(columns)} latents: give one, or one each")
    form, weights = _taken_apart(dictionary)
    each = jnp.asarray(np.broadcast_to(given, columns.shape))
    places = _places(dictionary, reads)
    return Partial(_Columns(form, how), weights, places, jnp.asarray(columns, jnp.int32), each)


def _clamp(codes: Array, values: Array) -> Array:
    return jnp.broadcast_to(values[None], codes.shape)


def _scale(codes: Array, factors: Array) -> Array:
    return codes * factors[None]


class Places(NamedTuple):
    """The hooks of a dictionary in a model."""

    reads: Any  # At, and in the pass its value f[B, P, D]; None: the edited hook
    writes: MadeFor | None  # None: any hook of the right width


OTHERWISE = (
    "take a dictionary of this hook, or, if its record is wrong, dictionary._replace(source=None)"
)
# A dictionary's facts, by which programs are told apart: those fields of its Plain that are no
# arrays. The arrays pass through jit as a Plain that has None for the facts.
Form: TypeAlias = tuple[Any, tuple[Any, ...]]


def _taken_apart(dictionary: Plain) -> tuple[Form, Plain]:
    """The facts of a dictionary, hashable, and its arrays."""

    def fact(value: Any) -> Any:
        return None if hasattr(value, "ndim") else value

    def array(value: Any) -> Any:
        return jnp.asarray(value) if hasattr(value, "ndim") else None

    dictionary = dictionary._replace(source=None)
    facts, tree = jax.tree.flatten(jax.tree.map(fact, dictionary))
    return (tree, tuple(facts)), jax.tree.map(array, dictionary)


def _together(form: Form, weights: Plain) -> Plain:
    tree, facts = form

    def either(fact: Any, array: Any) -> Any:
        return array if fact is None else fact

    facts = jax.tree.unflatten(tree, facts)
    return jax.tree.map(either, facts, weights, is_leaf=lambda value: value is None)


def _read(dictionary: Plain, places: Places, value: Array) -> Array:
    """The rows f32[N, d] that the dictionary encodes, where it is spliced in for `value`."""
    read = value if places.reads is None else places.reads
    if isinstance(read, At):
        raise UserError(f"this edit reads {read.hook}, so it can be used in a model's pass only")
    _check_width(dictionary, read, value)
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
        difference = (self.how(codes, numbers) - codes) @ jnp.take(dictionary.W_dec, columns, axis=0)
        return _added(dictionary, rows, value, difference)


def _added(dictionary: Plain, rows: Array, value: Array, difference: Array) -> Array:
    """value + difference f32[N, D], in the scale of each row's output."""
    scaled = difference * output_scale(dictionary, rows)
    return (value + scaled.reshape(value.shape)).astype(value.dtype)
