"""Functions of plain weights, the one record that can hold any sparse dictionary.

    codes = encode(plain, x)               # f32[B, m]
    y     = decode(plain, codes, x)        # f32[B, d_out]; x is read by a skip connection only

`aejax.fold(model, variables)` makes a Plain from a trained model, with the input scale and the
decoder norms folded in; `aejax.unfold(plain)` makes a model from a Plain. Files of other libraries
are read into a Plain and written from one, so its fields have the names that those files use:
W_enc, b_dec, apply_b_dec_to_input.
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

# Maps each name that `Plain.activation` may have to the class of sparse code that declares it.
KINDS: dict[Any, type[Sparse]] = {
    part.kind: part
    for part in vars(sparse).values()
    if isinstance(part, type) and issubclass(part, Sparse) and part.kind
}


def kind_of(plain: Plain) -> type[Sparse]:
    """Returns the class of sparse code that computes the weights' activation.

    Raises:
      UserError: if the activation is neither a known name nor a subclass of Sparse.
    """
    found = KINDS.get(plain.activation, plain.activation)
    if isinstance(found, type) and issubclass(found, Sparse):
        return found
    raise UserError(
        f"no sparse code is called {plain.called!r}: set the activation to one of "
        f"{', '.join(KINDS)}, or to a subclass of ae.bottlenecks.Sparse"
    )


class _Normalised(NamedTuple):
    x: Array  # f32[B, d]
    shift: Array  # f32[B, 1]
    scale: Array  # f32[B, 1]


def encode(plain: Plain, x: Array) -> Array:
    """Computes the activation of every latent, f32[B, m].

    Args:
      plain: the weights.
      x: raw inputs, f32[B, d], or f32[B, layers, size] for a crosscoder.

    Raises:
      UserError: if the weights are made for inputs of another size.
    """
    x, size = x.reshape((x.shape[0], -1)), plain.W_enc.shape[0]
    if x.shape[1] != size:
        raise UserError(
            f"x has {x.shape[1]} numbers per example, but these weights read {size}: pass inputs "
            "of the size that the weights were trained on"
        )
    x = _normalise(plain, x.astype(jnp.float32)).x
    if plain.apply_b_dec_to_input:
        x = x - plain.b_dec[None]
    return kind_of(plain).apply_plain(plain, x @ plain.W_enc)


def decode(plain: Plain, codes: Array, x: Array | None = None) -> Array:
    """Computes the output for given activations, f32[B, *shape].

    Args:
      plain: the weights.
      codes: the activations, f32[B, m].
      x: the raw inputs, f32[B, d]; needed if the weights have a skip connection or a normalisation.

    Raises:
      ValueError: if x is needed and not given.
    """
    output = codes @ plain.W_dec + plain.b_dec[None]
    if plain.W_skip is not None or plain.normalisation != "none":
        if x is None:
            raise ValueError(
                "these weights have a skip connection or a normalisation, so decode needs the "
                "input: pass x"
            )
        normalised = _normalise(plain, x.reshape((x.shape[0], -1)).astype(jnp.float32))
        if plain.W_skip is not None:
            output = output + normalised.x @ plain.W_skip
        output = output * normalised.scale + normalised.shift
    return output if plain.shape is None else output.reshape((-1, *plain.shape))


def reconstruct(plain: Plain, x: Array) -> Array:
    """Encodes x and decodes the activations, f32[B, *shape]."""
    return decode(plain, encode(plain, x), x)


def output_scale(plain: Plain, x: Array) -> Array:
    """What the output of each example is multiplied by, f32[B, 1]: 1 without a normalisation.

    Args:
      plain: the weights.
      x: f32[B, d].
    """
    return _normalise(plain, x).scale


def fold_decoder_norms(plain: Plain) -> Plain:
    """Rewrites the weights so that every atom has norm 1, without changing the output.

    Activations are then in units of the output. A latent whose atom is zero adds nothing; its
    pre-activation becomes zero too, so that a top-k selection does not choose it.

    Raises:
      UserError: if the class of the code has no `scales`.
      ValueError: for a code that selects the k largest, such as topk, if the selection ignores the
        atoms' norms, because folding would change which latents are selected.
    """
    norms, kind = jnp.linalg.norm(plain.W_dec, axis=-1), kind_of(plain)
    if kind.scales is None:
        raise UserError(
            f"{kind.__name__} does not say how its codes grow with its weights, so the atoms' "
            "norms cannot be folded: define `scales`, or keep the norms in W_dec"
        )
    if kind.selects and not plain.rescale_acts_by_decoder_norm:
        raise ValueError(
            f"folding the atoms' norms into the encoder would change which latents {plain.called} "
            "selects, because its selection ignores the norms: keep the norms in W_dec"
        )

    # A threshold may be infinite, and infinity times a zero norm is NaN.
    scaled = {name: jnp.where(norms > 0, plain.needed(name) * norms, 0.0) for name in kind.scales}
    return plain.changed(scaled)._replace(
        W_enc=plain.W_enc * norms[None],
        W_dec=plain.W_dec / jnp.where(norms > 0, norms, 1.0)[:, None],
        rescale_acts_by_decoder_norm=False,
    )


def _normalise(plain: Plain, x: Array) -> _Normalised:
    """Normalises each x by its own statistics, as the weights ask."""
    zero, one = jnp.zeros((x.shape[0], 1)), jnp.ones((x.shape[0], 1))
    if plain.normalisation == "layer_norm":
        mean = jnp.mean(x, axis=-1, keepdims=True)
        std = jnp.std(x, axis=-1, keepdims=True, ddof=1)
        # Like the reference libraries, this adds epsilon to the divisor but not to the returned
        # std that the output is multiplied by.
        return _Normalised((x - mean) / (std + 1e-5), mean, std)
    if plain.normalisation == "constant_norm_rescale":
        scale = jnp.linalg.norm(x, axis=-1, keepdims=True) / x.shape[-1] ** 0.5
        return _Normalised(x / scale, zero, scale)
    return _Normalised(x, zero, one)
