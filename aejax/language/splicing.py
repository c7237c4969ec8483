"""Sparse dictionaries in a language model: edits that reconstruct activations or change latents.

    replace(dictionary)                          # replaces values by their reconstructions
    clamp(dictionary, latents=[17], values=8.0)  # sets latent 17 to 8.0
    scale(dictionary, latents=[17], factor=0.0)  # sets latent 17 to zero
    latents(dictionary, value)                   # encodes f[B, P, D] to f32[B, P, m]

A dictionary is a `Plain`, the weights of any trained or loaded sparse autoencoder in a form that
takes unscaled inputs. An edit of latents computes x + decode(edited) - decode(original) as
x + (edited - original) W_dec: the bias, a skip connection and the reconstruction error cancel, and
an edit that changes no latent adds exactly zero.

A transcoder reads the values of one hook and predicts those of another, at which its edit belongs:

    edits = {"mlp_out.3": replace(transcoder, reads="mlp_in.3")}   # replaces the MLP

If a dictionary knows the hooks that it was trained on (`Plain.source`), `reads` is not needed, and
an edit that uses the dictionary at any other hook raises an error.
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
    """Returns an edit that replaces each value by its reconstruction.

    Args:
      dictionary: a dictionary whose reconstructions have the width D of the edited hook.
      reads: the hook whose values the dictionary encodes. None means the hook that it was trained
        to read, if `dictionary.source` names it, and otherwise the edited hook.

    Raises:
      UserError: if `dictionary.source` names another hook than `reads`.
    """
    form, weights = _taken_apart(dictionary)
    return Partial(_Replace(form), weights, _places(dictionary, reads))


def change(dictionary: Plain, edit: Change, *, reads: str | None = None) -> Edit:
    """Returns an edit that adds decode(edit(codes)) - decode(codes) to each value.

    Args:
      dictionary: a dictionary whose reconstructions have the width D of the edited hook.
      edit: a pure function (codes f32[N, m], position i32[N]) -> codes f32[N, m], as a pytree such
        as Partial.
      reads: the hook whose values the dictionary encodes. None means the hook that it was trained
        to read, if `dictionary.source` names it, and otherwise the edited hook.

    Raises:
      UserError: if `dictionary.source` names another hook than `reads`.
    """
    form, weights = _taken_apart(dictionary)
    return Partial(_Change(form), weights, _places(dictionary, reads), edit)


def clamp(
    dictionary: Plain, latents: Sequence[int], values: Any, *, reads: str | None = None
) -> Edit:
    """Returns an edit that sets latents to fixed values, whether they are active or not.

    Args:
      dictionary: a dictionary whose reconstructions have the width D of the edited hook.
      latents: the indices of the latents to set, from 0.
      values: one value for all of these latents, or one for each.
      reads: the hook whose values the dictionary encodes. None means the hook that it was trained
        to read, if `dictionary.source` names it, and otherwise the edited hook.

    Raises:
      UserError: if a latent does not exist or is named twice, the number of values is wrong, or
        `dictionary.source` names another hook than `reads`.
    """
    return _columns(dictionary, latents, values, reads, _clamp)


def scale(
    dictionary: Plain, latents: Sequence[int], factor: Any, *, reads: str | None = None
) -> Edit:
    """Returns an edit that multiplies latents by fixed factors; a factor of 0 ablates a latent.

    Args:
      dictionary: a dictionary whose reconstructions have the width D of the edited hook.
      latents: the indices of the latents to scale, from 0.
      factor: one factor for all of these latents, or one for each.
      reads: the hook whose values the dictionary encodes. None means the hook that it was trained
        to read, if `dictionary.source` names it, and otherwise the edited hook.

    Raises:
      UserError: if a latent does not exist or is named twice, the number of factors is wrong, or
        `dictionary.source` names another hook than `reads`.
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
    """The hook whose values a dictionary encodes, and the hook at which its edit is allowed."""

    # None: the edited hook. Another hook is an At, which a pass replaces by the value f[B, P, D].
    reads: Any
    writes: MadeFor | None  # None: the edit is allowed at any hook of the right width


OTHERWISE = (
    "use a dictionary of this hook, or, if `dictionary.source` is wrong, use "
    "dictionary._replace(source=None)"
)


def _places(dictionary: Plain, reads: str | None) -> Places:
    """Returns the `Places` of a dictionary: the hooks that its edit reads and that it may edit.

    Args:
      dictionary: the dictionary, whose `source` may name the hooks that it was trained on.
      reads: the user's argument, the hook whose values the dictionary encodes, or None.

    Raises:
      UserError: if `source` names another hook than `reads`.
    """
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
    """Returns an edit of a few latents, which computes only with the decoder rows of these.

    Args:
      dictionary: the dictionary.
      latents: the indices of the latents to edit.
      numbers: one number for all of the latents, or one for each.
      reads: the hook whose values the dictionary encodes, or None, as in `replace`.
      how: a function (codes f32[N, n], numbers f32[n]) -> edited codes, such as `_clamp`.

    Raises:
      UserError: if a latent does not exist or is named twice, or the number of `numbers` is wrong.
    """
    columns = np.asarray(latents, np.int64).reshape(-1)
    for column in columns.tolist():
        if not 0 <= column < dictionary.latents:
            raise UserError(
                f"there is no latent {column}: the dictionary has 0 to {dictionary.latents - 1}"
            )
    if len(set(columns.tolist())) < len(columns):
        raise UserError(
            f"the latents {columns.tolist()} have an index more than once: give each one once"
        )
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


# To pass through jit, a Plain is split in two. Its arrays (the weights, a Plain with None in place
# of all other fields) are inputs of the compiled program. Its other fields (the form) are static: a
# program is compiled for each form.
Form: TypeAlias = tuple[Any, tuple[Any, ...]]


def _taken_apart(dictionary: Plain) -> tuple[Form, Plain]:
    """Splits a dictionary into its arrays and all its other fields, which are hashable.

    Returns:
      The other fields (the form), and the dictionary with nothing but its arrays (the weights).
    """

    def fixed(value: Any) -> Any:
        return None if hasattr(value, "ndim") else value

    def array(value: Any) -> Any:
        return jnp.asarray(value) if hasattr(value, "ndim") else None

    dictionary = dictionary._replace(source=None)
    leaves, tree = jax.tree.flatten(jax.tree.map(fixed, dictionary))
    return (tree, tuple(leaves)), jax.tree.map(array, dictionary)


def _together(form: Form, weights: Plain) -> Plain:
    """Returns the dictionary that `_taken_apart` has split into the given form and weights."""
    return jax.tree.map(
        lambda fixed, array: array if fixed is None else fixed,
        jax.tree.unflatten(*form),
        weights,
        is_leaf=lambda value: value is None,
    )


def _read(dictionary: Plain, places: Places, value: Array) -> Array:
    """Returns the vectors f32[N, d] that the dictionary encodes.

    They are those of `value`, the value at the edited hook, or of another hook's value, which the
    pass has put into `places.reads`.
    """
    read = value if places.reads is None else places.reads
    if isinstance(read, At):
        raise UserError(
            f"this edit reads the values at {read.hook}, so it can be used only in the forward "
            "pass of a model"
        )
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
    """Adds a difference of reconstructions f32[N, D] to a value, converted to the value's units."""
    scaled = difference * output_scale(dictionary, rows)
    return (value + scaled.reshape(value.shape)).astype(value.dtype)
