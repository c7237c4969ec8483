"""Initialisations that set one part from another, or from data, before the optimiser starts.

Each is a function (variables, batch, key) -> variables, an argument of `aejax.learner`; several are
applied in order: `initialise=(standardised(), tied)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from aejax.errors import UserError
from aejax.losses.sparsity import safe_norm
from aejax.nets.scale import multiply
from aejax.types import Array, Batch, Key, Variables
from aejax.variables import (
    ATOMS,
    INPUT_SCALE,
    KERNEL,
    OFFSET,
    OUTPUT_SCALE,
    SKIP_SCALE,
    get,
    put,
)

Initialise = Callable[[Variables, Batch, Key], Variables]
# f32[N, D], centred -> a factor and its inverse, both f32[], f32[D] or f32[D, D]
Form = Callable[[Array], tuple[Array, Array]]


def tied(variables: Variables, batch: Batch, key: Key) -> Variables:
    """Sets the sparse encoder to the dictionary's transpose, W_enc = W_dec^T.

    The usual start of sparse autoencoders: a latent then answers to the direction it writes.
    """
    return put(variables, KERNEL, get(variables, ATOMS).T)


def mean_square(centred: Array) -> tuple[Array, Array]:
    """Each value of mean square 1 over data and D: what JumpReLU's window expects."""
    root = jnp.sqrt(jnp.mean(jnp.square(centred)))
    return 1.0 / _positive(root), _positive(root)


def expected_norm(centred: Array) -> tuple[Array, Array]:
    """E||x|| = sqrt(D): the convention of L1 coefficients (Conerly et al. 2024)."""
    mean = jnp.mean(jnp.linalg.norm(centred, axis=-1)) / centred.shape[-1] ** 0.5
    return 1.0 / _positive(mean), _positive(mean)


def unscaled(centred: Array) -> tuple[Array, Array]:
    """The data's own scale; with centring, the mean alone is removed."""
    return jnp.ones(()), jnp.ones(())


def whitening(epsilon: float = 1e-3) -> Form:
    """Uncorrelated values of variance 1, by the covariance's inverse root.

    Args:
      epsilon: of the mean variance, added to each eigenvalue, so that directions in which the data
        hardly varies are not blown up to noise.
    """

    def whitening(centred: Array) -> tuple[Array, Array]:
        covariance = centred.T @ centred / centred.shape[0]
        values, vectors = jnp.linalg.eigh(covariance)
        root = jnp.sqrt(jnp.maximum(values, 0.0) + epsilon * _positive(jnp.mean(values)))
        return (vectors / root[None]) @ vectors.T, (vectors * root[None]) @ vectors.T

    return whitening


def standardised(
    examples: Batch | None = None,
    form: Form = mean_square,
    centre: bool = True,
    layers: bool = False,
) -> Initialise:
    """Sets every `Scale` of the model from data: the encoder's from x, the decoder's from target.

    Args:
      examples: some thousands of them; None: the first batch.
      form: `mean_square`, `expected_norm`, `unscaled` or `whitening()`.
      centre: removes the mean, without which latents die where it is large.
      layers: scales each layer of [B, layers, size] by itself (crosscoders).
    """

    def standardised(variables: Variables, batch: Batch, key: Key) -> Variables:
        data = batch if examples is None else examples
        sources = {
            INPUT_SCALE: data.x,
            OUTPUT_SCALE: data.target,
            SKIP_SCALE: data.context,
        }
        found = False
        for path, values in sources.items():
            if _holds_scale(get(variables, path)):
                statistics = _statistics(jnp.asarray(values), form, centre, layers)
                variables = put(variables, path, statistics)
                found = True
        if not found:
            raise UserError(
                "standardised found no Scale: give the model Scale() as its encoder and "
                "Dictionary(..., scale=Scale()) as its decoder"
            )
        return variables

    return standardised


def base_rates(mean: Any, least: float = 1e-3) -> Initialise:
    """Sets the decoder's last bias to the logit of the data's mean, as Burda et al. 2016 do.

    The decoder then starts at the data's base rates and needs not find them. For a Bernoulli and a
    decoder that ends in a dense layer, as `nets.MLP` does.

    Args:
      mean: of the target, f[*event], from 0 to 1.
      least: it is clipped to [least, 1 - least].
    """
    rates = jnp.clip(jnp.asarray(mean, jnp.float32).reshape(-1), least, 1.0 - least)
    logits = jnp.log(rates) - jnp.log1p(-rates)

    def base_rates(variables: Variables, batch: Batch, key: Key) -> Variables:
        path = ("params", "decoder", "output", "bias")
        bias = get(variables, path)
        if bias is None or bias.shape != logits.shape:
            found = "none" if bias is None else f"{bias.size} numbers"
            raise UserError(
                f"base_rates needs a last dense layer with a bias of {logits.size} numbers, and "
                f"the decoder has {found}: use nets.MLP, or start from its own bias"
            )
        return put(variables, path, logits)

    return base_rates


def geometric_median(variables: Variables, batch: Batch, key: Key) -> Variables:
    """Sets the dictionary's bias to the target's geometric median, in the dictionary's units.

    By 100 steps of Weiszfeld's algorithm, as in OpenAI's and Marks et al.'s code.
    """
    target = batch.target.reshape((batch.target.shape[0], -1)).astype(jnp.float32)
    scale = get(variables, OUTPUT_SCALE)
    if _holds_scale(scale):
        target = multiply(target - scale["mean"][None], scale["factor"])

    def closer(_: Any, point: Array) -> Array:
        weights = 1.0 / jnp.maximum(jnp.linalg.norm(target - point[None], axis=-1), 1e-6)
        return weights @ target / jnp.sum(weights)

    median = jax.lax.fori_loop(0, 100, closer, jnp.mean(target, axis=0))
    return put(variables, OFFSET, median)


def layered(norm: float = 0.08) -> Initialise:
    """Gives each atom the same norm in every layer of a crosscoder (Lindsey et al. 2024).

    Args:
      norm: of the atom's part in one layer of the target [B, layers, size].
    """

    def layered(variables: Variables, batch: Batch, key: Key) -> Variables:
        atoms = get(variables, ATOMS)
        parts = atoms.reshape((-1, *batch.target.shape[1:]))
        lengths = jnp.maximum(safe_norm(parts)[..., None], 1e-12)
        return put(variables, ATOMS, (norm * parts / lengths).reshape(atoms.shape))

    return layered


def silent(variables: Variables, batch: Batch, key: Key) -> Variables:
    """Sets the dictionary's atoms to zero, as transcoders may start (sparsify)."""
    return put(variables, ATOMS, jnp.zeros_like(get(variables, ATOMS)))


def matched(model: Any) -> Initialise:
    """Rescales the sparse encoder so that outputs vary as much as targets do (Gao et al. 2024).

    Exact where the code is positively homogeneous: ReLU and TopK with an encoder bias of zero.

    Args:
      model: the Autoencoder that the variables belong to.
    """

    def matched(variables: Variables, batch: Batch, key: Key) -> Variables:

        def lengths(model: Any) -> tuple[Array, Array]:
            bias = model.decoder.weights(model.bottleneck.latents).bias[None]
            output = model.decoder.combine(model.posterior(batch).z)
            zero = model.decoder.finish(jnp.broadcast_to(bias, output.shape))
            wanted = model.decoder.measure(batch.target - zero)
            return jnp.mean(safe_norm(wanted)), jnp.mean(safe_norm(output))

        wanted, had = model.apply(variables, method=lengths)
        kernel = get(variables, KERNEL)
        return put(variables, KERNEL, kernel * wanted / _positive(had))

    return matched


def _statistics(values: Array, form: Form, centre: bool, layers: bool) -> dict[str, Array]:
    flat = values.reshape((values.shape[0], -1)).astype(jnp.float32)
    mean = jnp.mean(flat, axis=0)
    centred = flat - mean[None]
    gamma = jnp.linalg.norm(mean) / _positive(jnp.linalg.norm(jnp.std(flat, axis=0)))
    seen = centred if centre else flat
    if layers:
        parts = [form(part) for part in jnp.moveaxis(seen.reshape(values.shape), 1, 0)]
        size = flat.shape[-1] // values.shape[1]
        factor, inverse = (jnp.repeat(jnp.stack(each), size) for each in zip(*parts, strict=True))
    else:
        factor, inverse = form(seen)
    mean = mean if centre else jnp.zeros_like(mean)
    return {"mean": mean, "factor": factor, "inverse": inverse, "gamma": gamma}


def _positive(value: Array) -> Array:
    """The value, or 1 where the data does not vary."""
    return jnp.where(value > 0, value, 1.0)


def _holds_scale(memory: Any) -> bool:
    return memory is not None and {"mean", "factor", "inverse"} <= set(memory)
