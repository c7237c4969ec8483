"""Plain weights: what any sparse dictionary of the literature is, on raw inputs, in one record.

    codes = encode(plain, x)               # f32[B, m]
    y     = decode(plain, codes, x)        # f32[B, d_out]; x for the skip connection alone

`aejax.fold(model, variables)` makes a Plain of a trained model (input scale and decoder norms
folded in), `aejax.unfold(plain)` a model of a Plain. Files of other libraries are read into it and
written from it. Names are those of the files: W_enc, b_dec, apply_b_dec_to_input.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from aejax.bottlenecks import sparse
from aejax.bottlenecks.sparse import Sparse
from aejax.bottlenecks.sparse.plain import Plain
from aejax.errors import UserError
from aejax.types import Array

__all__ = ["Plain", "decode", "encode", "fold_decoder_norms", "kind_of", "reconstruct"]

# The classes that a name stands for as a Plain's activation, read from the classes themselves.
KINDS: dict[Any, type[Sparse]] = {
    part.kind: part
    for part in vars(sparse).values()
    if isinstance(part, type) and issubclass(part, Sparse) and part.kind
}


def kind_of(plain: Plain) -> type[Sparse]:
    """The class of the activation.

    Raises:
      UserError: if it is neither a known name nor a class of sparse code.
    """
    found = KINDS.get(plain.activation, plain.activation)
    if isinstance(found, type) and issubclass(found, Sparse):
        return found
    raise UserError(
        f"no sparse code is called {plain.called!r}: give one of {', '.join(KINDS)}, or a subclass "
        "of ae.bottlenecks.Sparse"
    )


class _Normalised(NamedTuple):
    x: Array  # f32[B, d]
    shift: Array  # f32[B, 1]
    scale: Array  # f32[B, 1]


def encode(plain: Plain, x: Array) -> Array:
    """The activations of every latent, f32[B, m].

    Args:
      plain: the weights.
      x: f32[B, d], or f32[B, layers, size].

    Raises:
      UserError: if the weights are of inputs of another size.
    """
    x, size = x.reshape((x.shape[0], -1)), plain.W_enc.shape[0]
    if x.shape[1] != size:
        raise UserError(
            f"x has {x.shape[1]} numbers an example, but these weights read {size}: give them "
            "inputs of the kind that they were trained on"
        )
    x = _normalise(plain, x.astype(jnp.float32)).x
    if plain.apply_b_dec_to_input:
        x = x - plain.b_dec[None]
    return kind_of(plain).apply_plain(plain, x @ plain.W_enc)


def decode(plain: Plain, codes: Array, x: Array | None = None) -> Array:
    """The output for given activations, f32[B, *shape].

    Args:
      plain: the weights.
      codes: f32[B, m].
      x: f32[B, d], the input, which a skip connection and a normalisation of each x need.

    Raises:
      ValueError: if x is needed and not given.
    """
    output = codes @ plain.W_dec + plain.b_dec[None]
    if plain.W_skip is not None or plain.normalisation != "none":
        if x is None:
            raise ValueError("these weights need the input to decode: pass x to decode")
        normalised = _normalise(plain, x.reshape((x.shape[0], -1)).astype(jnp.float32))
        if plain.W_skip is not None:
            output = output + normalised.x @ plain.W_skip
        output = output * normalised.scale + normalised.shift
    return output if plain.shape is None else output.reshape((-1, *plain.shape))


def reconstruct(plain: Plain, x: Array) -> Array:
    """What the dictionary makes of x, f32[B, *shape]."""
    return decode(plain, encode(plain, x), x)


def output_scale(plain: Plain, x: Array) -> Array:
    """What the output of each example is multiplied by, f32[B, 1]: 1 without a normalisation.

    Args:
      plain: the weights.
      x: f32[B, d].
    """
    return _normalise(plain, x).scale


def fold_decoder_norms(plain: Plain) -> Plain:
    """The same function with atoms of norm 1: activations then are in units of the output.

    A latent whose atom is zero writes nothing: its pre-activation becomes zero too, so that it
    takes no other's place where the largest are selected.

    Raises:
      ValueError: for a code that selects the k largest, such as topk, unless the selection used the
        norms: it would change.
    """
    norms = jnp.linalg.norm(plain.W_dec, axis=-1)
    if kind_of(plain).selects and not plain.rescale_acts_by_decoder_norm:
        raise ValueError(
            f"folding norms into {plain.called} changes which latents are selected, because it "
            "selects without them"
        )

    def scaled(vector: Array | None) -> Array | None:
        # Not by multiplication alone: a threshold may be infinite.
        return None if vector is None else jnp.where(norms > 0, vector * norms, 0.0)

    return plain._replace(
        W_enc=plain.W_enc * norms[None],
        W_dec=plain.W_dec / jnp.where(norms > 0, norms, 1.0)[:, None],
        b_enc=scaled(plain.b_enc),
        threshold=scaled(plain.threshold),
        b_gate=scaled(plain.b_gate),
        b_mag=scaled(plain.b_mag),
        rescale_acts_by_decoder_norm=False,
    )


def _normalise(plain: Plain, x: Array) -> _Normalised:
    zero, one = jnp.zeros((x.shape[0], 1)), jnp.ones((x.shape[0], 1))
    if plain.normalisation == "layer_norm":
        mean = jnp.mean(x, axis=-1, keepdims=True)
        std = jnp.std(x, axis=-1, keepdims=True, ddof=1)
        # The libraries add epsilon on the way in and not on the way out.
        return _Normalised((x - mean) / (std + 1e-5), mean, std)
    if plain.normalisation == "constant_norm_rescale":
        scale = jnp.linalg.norm(x, axis=-1, keepdims=True) / x.shape[-1] ** 0.5
        return _Normalised(x / scale, zero, scale)
    return _Normalised(x, zero, one)
