"""From a trained model to plain weights on raw inputs, and from plain weights to a model."""

from __future__ import annotations

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
    """Plain weights that give the model's output on raw inputs, without its key, its scale inside.

    Sums are taken in float64, so a large mean costs no accuracy. Where the selection uses the
    atoms' norms and the output has a scale, the norms are folded into the encoder first, because
    the scale changes them.

    Args:
      model: an Autoencoder of Identity or Scale, a sparse bottleneck, and Dictionary.
      variables: {params, memory}, of one member.

    Raises:
      UserError: if a part of the model is no linear map, or a skip connection sees a scaled context
        by another net than Scale.
    """
    _check(model)
    check_member(variables)
    atoms = jnp.asarray(get(variables, ATOMS), jnp.float32)
    norms = jnp.maximum(jnp.linalg.norm(atoms, axis=-1), 1e-12)
    own, kept = (get(variables, (name, "bottleneck")) for name in ("params", "memory"))
    plain = Plain(
        W_enc=jnp.asarray(get(variables, KERNEL), jnp.float32),
        W_dec=atoms,
        b_dec=jnp.asarray(get(variables, OFFSET), jnp.float32),
        apply_b_dec_to_input=model.bottleneck.subtract_bias,
        W_skip=get(variables, SKIP),
        shape=None if isinstance(model.decoder.shape, int) else tuple(model.decoder.shape),
        **model.bottleneck.plain(own, kept or {}, norms),
    )
    if isinstance(model.encoder, nets.Scale):
        seen = get(variables, INPUT_SCALE)
        plain = fold_input(plain, seen["mean"], seen["factor"])
    return _fold_output(plain, get(variables, OUTPUT_SCALE), get(variables, SKIP_SCALE))


def check_member(variables: Variables) -> None:
    """Raises UserError for the variables of several members of a dictionary."""
    atoms = get(variables, ATOMS)
    if atoms is not None and np.ndim(atoms) > 2:
        raise UserError(
            f"these are the variables of {np.shape(atoms)[0]} members: take one, as "
            "ae.load(folder, seed=0) or jax.tree.map(lambda leaf: leaf[0], variables) does"
        )


def raw_atoms(variables: Variables) -> np.ndarray:
    """What each latent adds in raw units, f[m, D]: the atoms, out of the scale of the output.

    Args:
      variables: of one member.

    Raises:
      UserError: if the decoder has no atoms.
    """
    atoms, scale = get(variables, ATOMS), get(variables, OUTPUT_SCALE)
    if atoms is None:
        there = get(variables, ATOMS[:-1]) or ["no parameters"]
        raise UserError(
            f"a dictionary's {'/'.join(ATOMS)} are needed, but the decoder has {', '.join(there)}: "
            "give Autoencoder a Dictionary as its decoder"
        )
    return _wide(atoms) if scale is None else _times(_wide(atoms), _wide(scale["inverse"]))


def fold_input(plain: Plain, mean: Any, factor: Any) -> Plain:
    """The same function of raw inputs x, where the weights expect (x - mean) * factor.

    The decoder's bias is then no longer taken from the input: it goes into the encoder's biases.

    Args:
      plain: the weights; a skip connection is left as it is.
      mean: f32[d].
      factor: f32[], f32[d] or f32[d, d].
    """
    kernel = _wide(plain.W_enc)
    shift = _times(_wide(mean)[None], _wide(factor))[0]
    if plain.apply_b_dec_to_input:
        shift = shift + _wide(plain.b_dec)
    moved = -shift @ kernel
    changed: dict[str, Any] = {"W_enc": _narrow(_before(_wide(factor), kernel))}
    for name in ("b_enc", "b_gate"):
        value = getattr(plain, name)
        if value is not None:
            changed[name] = _narrow(_wide(value) + moved)
    if plain.b_mag is not None:
        changed["b_mag"] = _narrow(_wide(plain.b_mag) + np.exp(_wide(plain.r_mag)) * moved)
    return plain._replace(**changed, apply_b_dec_to_input=False)


def _fold_output(plain: Plain, scale: Any, skip: Any) -> Plain:
    """The output in raw units, and the skip connection on raw inputs."""
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
    """The same encoder, without the decoder's bias at its input: that bias is about to change."""
    if not plain.apply_b_dec_to_input:
        return plain
    return fold_input(plain, jnp.zeros_like(plain.W_enc[:, 0]), jnp.ones(()))


def unfold(plain: Plain) -> tuple[Autoencoder, Variables]:
    """A model of the library's parts that computes exactly what plain weights do.

    With a skip connection its batches carry the input as their context, Batch(x, target, x).

    Raises:
      UserError: if each input is to be normalised by itself, which no part of a model does.
    """
    if plain.normalisation != "none":
        raise UserError(
            f"these weights expect inputs normalised one by one ({plain.normalisation}): use "
            "ae.dictionary.reconstruct, or normalise the data and set normalisation to 'none'"
        )
    bottleneck, params = kind_of(plain).from_plain(plain)
    decoder = {ATOMS[-1]: plain.W_dec, OFFSET[-1]: plain.b_dec}
    skip = None
    if plain.W_skip is not None:
        skip, decoder[SKIP[-1]] = nets.Identity(), plain.W_skip
    shape = plain.W_dec.shape[1] if plain.shape is None else plain.shape
    model = Autoencoder(nets.Identity(), bottleneck, nets.Dictionary(shape, skip=skip))
    ages = jnp.zeros((plain.latents,), jnp.int32)
    params = {"bottleneck": params, "decoder": decoder}
    return model, {"params": params, **nested(AGE, ages)}


def _check(model: Any) -> None:
    expected = (
        ("encoder", model.encoder, (nets.Identity, nets.Scale)),
        ("bottleneck", model.bottleneck, (Sparse,)),
        ("decoder", model.decoder, (nets.Dictionary,)),
        ("likelihood", model.likelihood, (type(None),)),
    )
    for name, part, kinds in expected:
        if not isinstance(part, kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise UserError(
                f"only a linear dictionary has plain weights, but the {name} is a "
                f"{type(part).__name__}, not {wanted}"
            )
    skip = model.decoder.skip
    if skip is not None and not isinstance(skip, nets.Identity | nets.Scale):
        raise UserError(
            f"the skip connection sees the input through a {type(skip).__name__}, which plain "
            "weights cannot hold: use Identity or Scale"
        )


def _wide(value: Any) -> np.ndarray:
    return np.asarray(value, np.float64)


def _narrow(value: np.ndarray) -> Any:
    return jnp.asarray(value.astype(np.float32))


def _times(rows: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Rows [N, D] times a factor [], [D] or [D, D]."""
    return rows @ factor if factor.ndim == 2 else rows * factor


def _before(factor: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The kernel that takes raw values, where the given one [D, m] takes scaled ones."""
    if factor.ndim == 2:
        return factor @ kernel
    return kernel * (factor[:, None] if factor.ndim == 1 else factor)
