"""Converts a trained model to plain weights on raw inputs, and plain weights to a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from aejax import nets
from aejax.bottlenecks import Sparse
from aejax.dictionaries.plain import Plain, fold_decoder_norms, kind_of
from aejax.errors import UserError
from aejax.model import Autoencoder
from aejax.types import Variables
from aejax.variables import (
    AGE,
    ATOMS,
    INPUT_SCALE,
    KERNEL,
    OFFSET,
    OUTPUT_SCALE,
    SKIP,
    SKIP_SCALE,
    get,
    nested,
)


def fold(model: Any, variables: Variables) -> Plain:
    """Returns plain weights that compute the model's deterministic output on raw inputs.

    The input and output scales are folded into the weights. Sums are taken in float64, so that a
    large mean costs no accuracy. If the selection uses the atoms' norms and the output has a scale,
    the norms are folded into the encoder first, because the scale would change them.

    Args:
      model: an Autoencoder whose encoder is Identity, Scale or Normalise, whose bottleneck is
        sparse and whose decoder is a Dictionary.
      variables: the {params, memory} of one model, without an axis of seeds.

    Raises:
      UserError: if the model is not such a linear dictionary, or if its skip connection reads the
        input through a net other than Identity or Scale.
    """
    _check(model)
    check_member(variables)
    atoms = jnp.asarray(get(variables, ATOMS), jnp.float32)
    norms = jnp.maximum(jnp.linalg.norm(atoms, axis=-1), 1e-12)
    own, kept = (get(variables, (name, "bottleneck")) for name in ("params", "memory"))
    kernel = get(variables, KERNEL)
    plain = Plain(
        # A code without a kernel of its own is tied to the atoms.
        W_enc=atoms.T if kernel is None else jnp.asarray(kernel, jnp.float32),
        W_dec=atoms,
        b_dec=jnp.asarray(get(variables, OFFSET), jnp.float32),
        apply_b_dec_to_input=model.bottleneck.subtract_bias,
        W_skip=get(variables, SKIP),
        normalisation=getattr(model.encoder, "how", "none"),
        shape=_of_several_axes(model.decoder.shape),
        **model.bottleneck.plain(own, kept or {}, norms),
    )
    if isinstance(model.encoder, nets.Scale):
        seen = get(variables, INPUT_SCALE)
        plain = fold_input(plain, seen["mean"], seen["factor"])
    return _fold_output(plain, get(variables, OUTPUT_SCALE), get(variables, SKIP_SCALE))


def check_member(variables: Variables) -> None:
    """Checks that the variables are those of one model, not of several seeds.

    Raises:
      UserError: if the atoms have a leading axis of seeds.
    """
    atoms = get(variables, ATOMS)
    if atoms is not None and np.ndim(atoms) > 2:
        raise UserError(
            f"these are the variables of {np.shape(atoms)[0]} seeds, but those of one are needed: "
            "use ae.load(folder, seed=0) or jax.tree.map(lambda leaf: leaf[0], variables)"
        )


def input_size(variables: Variables) -> int | None:
    """Returns the encoder's input size d, or None if the model is not a dictionary.

    Args:
      variables: the {params, memory} of one model.
    """
    kernel, atoms = get(variables, KERNEL), get(variables, ATOMS)
    if kernel is not None:
        return np.shape(kernel)[0]
    return None if atoms is None else np.shape(atoms)[1]  # a tied code encodes by its atoms


def raw_atoms(variables: Variables) -> np.ndarray:
    """Returns the decoder rows (atoms) in the units of the targets, without a scale, f64[m, D].

    Args:
      variables: the {params, memory} of one model.

    Raises:
      UserError: if the decoder has no atoms.
    """
    atoms, scale = get(variables, ATOMS), get(variables, OUTPUT_SCALE)
    if atoms is None:
        there = get(variables, ATOMS[:-1]) or ["no parameters"]
        raise UserError(
            f"the dictionary's {'/'.join(ATOMS)} are needed, but the decoder has "
            f"{', '.join(there)}: give Autoencoder a Dictionary as its decoder"
        )
    return _wide(atoms) if scale is None else _times(_wide(atoms), _wide(scale["inverse"]))


def fold_input(plain: Plain, mean: Any, factor: Any) -> Plain:
    """Returns weights for raw inputs x, from weights for the inputs (x - mean) * factor.

    The returned weights do not subtract the decoder's bias from the input, because it is folded
    into the encoder's biases.

    Args:
      plain: the weights; their skip connection is not changed.
      mean: the mean of the inputs, f32[d].
      factor: the factor of the inputs: f32[] or f32[d] multiplies, f32[d, d] is a matrix.
    """
    kernel = _wide(plain.W_enc)
    shift = _times(_wide(mean)[None], _wide(factor))[0]
    if plain.apply_b_dec_to_input:
        shift = shift + _wide(plain.b_dec)
    moved = -shift @ kernel
    fields = kind_of(plain).shift_plain(plain, moved)
    changed = plain.changed({name: _narrow(value) for name, value in fields.items()})
    return changed._replace(
        W_enc=_narrow(_before(_wide(factor), kernel)), apply_b_dec_to_input=False
    )


def _fold_output(plain: Plain, scale: Any, skip: Any) -> Plain:
    """Returns weights into which the scales of the output and of the skip connection are folded.

    Args:
      plain: the weights, whose outputs are in scaled units.
      scale: the statistics of the decoder's `Scale` (name -> array), or None.
      skip: the statistics of the `Scale` of the skip connection's input, or None.
    """
    bias = _wide(plain.b_dec)
    kernel = None if plain.W_skip is None else _wide(plain.W_skip)
    if kernel is not None and skip is not None:
        factor = _wide(skip["factor"])
        bias = bias - _times(_wide(skip["mean"])[None], factor)[0] @ kernel
        kernel = _before(factor, kernel)
    if scale is None:
        if kernel is None:
            return plain
        return _unbiased(plain)._replace(b_dec=_narrow(bias), W_skip=_narrow(kernel))
    plain = _unbiased(plain)
    if plain.rescale_acts_by_decoder_norm:
        plain = fold_decoder_norms(plain)
    inverse = _wide(scale["inverse"])
    return plain._replace(
        W_dec=_narrow(_times(_wide(plain.W_dec), inverse)),
        b_dec=_narrow(_times(bias[None], inverse)[0] + _wide(scale["mean"])),
        W_skip=None if kernel is None else _narrow(_times(kernel, inverse)),
    )


def _unbiased(plain: Plain) -> Plain:
    """Returns the same weights without a subtraction of b_dec from the input.

    It is folded into the encoder's biases, so that b_dec may then change.
    """
    if not plain.apply_b_dec_to_input:
        return plain
    return fold_input(plain, jnp.zeros_like(plain.W_enc[:, 0]), jnp.ones(()))


def unfold(plain: Plain) -> tuple[Autoencoder, Variables]:
    """Returns a model, with its variables, that computes exactly what the plain weights compute.

    If the weights have a skip connection or normalise each input, batches must carry the input as
    their context: Batch(x, target, x), or a split with `context` or the change `InputToo`.
    """
    bottleneck, params = kind_of(plain).from_plain(plain)
    decoder = {ATOMS[-1]: plain.W_dec, OFFSET[-1]: plain.b_dec}
    how = plain.normalisation

    def view() -> Any:
        return nets.Identity() if how == "none" else nets.Normalise(how)

    skip = None
    if plain.W_skip is not None:
        skip, decoder[SKIP[-1]] = view(), plain.W_skip
    scale = None if how == "none" else view()
    shape = plain.W_dec.shape[1] if plain.shape is None else plain.shape
    model = Autoencoder(view(), bottleneck, nets.Dictionary(shape, scale=scale, skip=skip))
    ages = jnp.zeros((plain.latents,), jnp.int32)
    params = {"bottleneck": params, "decoder": decoder}
    return model, {"params": params, **nested(AGE, ages)}


def _check(model: Any) -> None:
    """Raises UserError if the model is not a linear dictionary."""
    expected = (
        ("encoder", model.encoder, (nets.Identity, nets.Scale, nets.Normalise)),
        ("bottleneck", model.bottleneck, (Sparse,)),
        ("decoder", model.decoder, (nets.Dictionary,)),
        ("likelihood", model.likelihood, (type(None),)),
    )
    for name, part, kinds in expected:
        if not isinstance(part, kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise UserError(
                f"only a linear dictionary has plain weights, but the model's {name} is a "
                f"{type(part).__name__}, not {wanted}"
            )
    skip = model.decoder.skip
    if skip is not None and not isinstance(skip, nets.Identity | nets.Scale | nets.Normalise):
        raise UserError(
            f"the skip connection sees the input through a {type(skip).__name__}, which plain "
            "weights cannot hold: use Identity or Scale"
        )
    views = [model.encoder, model.decoder.scale, *([] if skip is None else [skip])]
    normalising = {getattr(view, "how", "none") for view in views}
    if len(normalising) > 1:
        raise UserError(
            "the encoder, the decoder's scale and its skip connection do not normalise each input "
            f"in the same way ({', '.join(sorted(normalising))}), which plain weights cannot hold: "
            "give all of them a Normalise, or none"
        )


def _of_several_axes(shape: int | Sequence[int]) -> tuple[int, ...] | None:
    """Returns the shape of one output, or None if it has one axis, as a file would give it."""
    return None if isinstance(shape, int) or len(shape) == 1 else tuple(shape)


def _wide(value: Any) -> np.ndarray:
    return np.asarray(value, np.float64)


def _narrow(value: np.ndarray) -> Any:
    return jnp.asarray(value.astype(np.float32))


def _times(rows: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Multiplies rows f64[N, D] by a factor f64[] or f64[D], or by a matrix f64[D, D]."""
    return rows @ factor if factor.ndim == 2 else rows * factor


def _before(factor: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Returns the kernel f64[D, m] that computes with x what the given one does with x * factor."""
    if factor.ndim == 2:
        return factor @ kernel
    return kernel * (factor[:, None] if factor.ndim == 1 else factor)
