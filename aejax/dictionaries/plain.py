"""Plain weights: what any sparse dictionary of the literature is, on raw inputs, in one record.

    codes = encode(plain, x)               # f32[B, m]
    y     = decode(plain, codes, x)        # f32[B, d_out]; x for the skip connection alone

`aejax.fold(model, variables)` makes a Plain of a trained model (input scale and decoder norms
folded in), `aejax.unfold(plain)` a model of a Plain. Files of other libraries are read into it and
written from it. Names are those of the files: W_enc, b_dec, apply_b_dec_to_input.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from aejax.errors import UserError
from aejax.types import Array

Activation: TypeAlias = Literal["relu", "topk", "abstopk", "jumprelu", "gated"]
Normalisation: TypeAlias = Literal["none", "layer_norm", "constant_norm_rescale"]


class Plain(NamedTuple):
    """A dictionary's weights; with a the switch `apply_b_dec_to_input`, pi = (x - a b_dec) W_enc.

    relu      relu(pi + b_enc)
    topk      the k largest of pi + b_enc, cut at zero
    abstopk   the k largest in magnitude, signs kept
    jumprelu  relu(p) where p = pi + b_enc is above the threshold, else 0
    gated     relu(exp(r_mag) pi + b_mag) where pi + b_gate is above 0, else 0
    """

    activation: Activation
    W_enc: Array  # f32[d, m]; a crosscoder's layers are flattened, d = layers * size
    W_dec: Array  # f32[m, d_out]
    b_dec: Array  # f32[d_out]
    b_enc: Array | None = None  # f32[m]; None where gated
    threshold: Array | None = None  # f32[m], jumprelu
    b_gate: Array | None = None  # f32[m], gated
    b_mag: Array | None = None  # f32[m], gated
    r_mag: Array | None = None  # f32[m], gated
    k: int | None = None  # topk and abstopk
    rescale_acts_by_decoder_norm: bool = False  # topk: selects by p * ||W_dec row||
    apply_b_dec_to_input: bool = False
    W_skip: Array | None = None  # f32[d, d_out], added to the output as x W_skip
    # Done to each x by itself, and undone on the output; what depends on the data set alone is
    # folded into the weights. As layer_norm: (x - mean) / (std + 1e-5), std with ddof 1.
    normalisation: Normalisation = "none"
    shape: tuple[int, ...] | None = None  # of one output where that is no vector: (layers, size)

    @property
    def latents(self) -> int:
        """The number of latents, m."""
        return self.W_dec.shape[0]


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
    pre = x @ plain.W_enc
    if plain.activation == "gated":
        assert plain.b_gate is not None
        assert plain.b_mag is not None
        assert plain.r_mag is not None
        magnitude = jax.nn.relu(jnp.exp(plain.r_mag)[None] * pre + plain.b_mag[None])
        return jnp.where(pre + plain.b_gate[None] > 0, magnitude, 0.0)
    assert plain.b_enc is not None
    pre = pre + plain.b_enc[None]
    if plain.activation == "relu":
        return jax.nn.relu(pre)
    if plain.activation == "jumprelu":
        assert plain.threshold is not None
        return jnp.where(pre > plain.threshold[None], jax.nn.relu(pre), 0.0)
    return _largest(plain, pre)


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
      ValueError: for topk or abstopk unless the selection used the norms: it would change.
    """
    norms = jnp.linalg.norm(plain.W_dec, axis=-1)
    if plain.activation in ("topk", "abstopk") and not plain.rescale_acts_by_decoder_norm:
        raise ValueError(
            f"folding norms into {plain.activation} changes which latents are selected, because it "
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


def _largest(plain: Plain, pre: Array) -> Array:
    assert plain.k is not None
    score = jnp.abs(pre) if plain.activation == "abstopk" else pre
    if plain.rescale_acts_by_decoder_norm:
        score = score * jnp.linalg.norm(plain.W_dec, axis=-1)[None]
    _, indices = jax.lax.top_k(score, plain.k)
    values = jnp.take_along_axis(pre, indices, axis=-1)
    if plain.activation == "topk":
        values = jax.nn.relu(values)
    rows = jnp.broadcast_to(jnp.arange(pre.shape[0])[:, None], indices.shape)
    return jnp.zeros_like(pre).at[rows, indices].set(values)


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
