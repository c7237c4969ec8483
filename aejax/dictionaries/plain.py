"""Functions of `Plain`, the record of weights that can represent any sparse dictionary.

    codes = encode(plain, x)               # f32[N, m] for x f32[N, d], or [B, T, m] for [B, T, d]
    y     = decode(plain, codes, x)        # f32[N, d_out]; a skip or normalisation needs x

`aejax.fold(model, variables)` returns a trained model as a Plain, with the input scale and the
decoder norms folded in; `aejax.unfold(plain)` returns a Plain as a model. Files of other libraries
are read into a Plain and written from one, so its fields have the names that those files use:
W_enc, b_dec, apply_b_dec_to_input.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from aejax.bottlenecks import sparse
from aejax.bottlenecks.sparse import Sparse
from aejax.bottlenecks.sparse.plain import Plain
from aejax.errors import UserError
from aejax.events import batch_axes, is_dense
from aejax.nets.normalise import normalised
from aejax.types import Array

__all__ = [
    "Plain",
    "decode",
    "encode",
    "fold_decoder_norms",
    "inputs",
    "kind_of",
    "reconstruct",
]

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


def inputs(plain: Plain, x: Any) -> Array:
    """Returns the encoder's input, which W_enc multiplies, f32[N, d].

    It is x, normalised as `plain.normalisation` says, and minus b_dec if
    `plain.apply_b_dec_to_input` is set.

    Args:
      plain: the weights.
      x: raw inputs, f32[N, d] or f32[B, T, d], see `encode`.

    Raises:
      UserError: if the weights are made for inputs of another size.
    """
    seen = normalised(_rows(plain, x)[0], plain.normalisation).x
    return seen - plain.b_dec[None] if plain.apply_b_dec_to_input else seen


def encode(plain: Plain, x: Any) -> Array:
    """Computes the activation of every latent, f32[..., m].

    Args:
      plain: the weights.
      x: raw inputs of numpy, JAX or torch, f32[N, d] or f32[B, T, d]; one input may have several
        axes, such as [layers, size] of a crosscoder.

    Returns:
      f32[N, m] or f32[B, T, m]: the axes of the examples stay as they are.

    Raises:
      UserError: if the weights are made for inputs of another size; the message has both sizes.
    """
    lead = _rows(plain, x)[1]
    codes = kind_of(plain).encode_plain(plain, inputs(plain, x))
    return codes.reshape(*lead, plain.latents)


def decode(plain: Plain, codes: Any, x: Any = None) -> Array:
    """Computes the output for given activations of the latents.

    Args:
      plain: the weights.
      codes: the activations, f32[N, m] or f32[B, T, m], or a sparse record such as `Rows`.
      x: the raw inputs, f32[N, d] or f32[B, T, d]; needed if the weights have a skip connection or
        a normalisation.

    Returns:
      f32[N, d_out] or f32[B, T, d_out], where d_out may be a shape, such as [layers, size].

    Raises:
      UserError: if the number of latents of the codes is not that of the weights.
      ValueError: if x is needed and not given.
    """
    if not is_dense(codes) and not hasattr(codes, "combine"):
        codes = jnp.asarray(codes)
    held = codes.shape[-1] if is_dense(codes) else codes.latents
    if held != plain.latents:
        raise UserError(
            f"the codes have {held} latents, but these weights have {plain.latents}: pass the "
            "codes of these weights"
        )
    if is_dense(codes):
        lead = codes.shape[:-1]
        output = jnp.asarray(codes).reshape(-1, held) @ plain.W_dec
    else:
        output = codes.combine(plain.W_dec)
        lead = output.shape[:1]
    output = output + plain.b_dec[None]
    if plain.W_skip is not None or plain.normalisation != "none":
        if x is None:
            raise ValueError(
                "these weights have a skip connection or a normalisation, so decode needs the "
                "input: pass x"
            )
        seen = normalised(_rows(plain, x)[0], plain.normalisation)
        if plain.W_skip is not None:
            output = output + seen.x @ plain.W_skip
        output = output * seen.scale + seen.shift
    return output.reshape(*lead, *(plain.shape or (plain.W_dec.shape[1],)))


def reconstruct(plain: Plain, x: Any) -> Array:
    """Returns the reconstruction of raw inputs x: decode(plain, encode(plain, x), x)."""
    return decode(plain, encode(plain, x), x)


def output_scale(plain: Plain, x: Array) -> Array:
    """Returns the factor of each example's output that undoes the input's normalisation, f32[B, 1].

    Without a normalisation the factor is 1.

    Args:
      plain: the weights.
      x: f32[B, d].
    """
    return normalised(x, plain.normalisation).scale


def fold_decoder_norms(plain: Plain) -> Plain:
    """Returns weights with the same output in which every atom has norm 1.

    Activations are then in units of the output. A latent whose atom is zero adds nothing; its
    pre-activation becomes zero too, so that a top-k selection does not choose it.

    Raises:
      UserError: if the class of the code has no class attribute `scales`.
      ValueError: for a code that selects the k largest, such as topk, if the selection ignores the
        atoms' norms, because folding would change which latents are selected.
    """
    norms, kind = jnp.linalg.norm(plain.W_dec, axis=-1), kind_of(plain)
    if kind.scales is None:
        raise UserError(
            f"the norms of the atoms cannot be folded into the encoder, because {kind.__name__} "
            "does not say which fields grow with a latent's values: set its class attribute "
            "`scales` to their names, as in scales = ('b_enc',), or keep the norms in W_dec"
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


def _rows(plain: Plain, x: Any) -> tuple[Array, tuple[int, ...]]:
    """Returns the inputs x as rows f32[N, d], and the shape of x's batch axes, (N,) or (B, T)."""
    x, size = jnp.asarray(x), plain.W_enc.shape[0]
    first = batch_axes(x, size, plain.shape, "these weights read")
    return x.reshape(-1, size).astype(jnp.float32), x.shape[:first]
