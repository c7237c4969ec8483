"""Initialisers that set parameters from other parameters or from data before training starts.

An initialiser is a function (variables, batch, key) -> variables, given to `aejax.learner`. Several
are applied in order: `initialise=(standardised(), tied)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from aejax.data.moments import Moments
from aejax.data.split import Split
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
# Maps data f32[N, D] to a factor and its inverse, both of shape f32[], f32[D] or f32[D, D].
Form = Callable[[Array], tuple[Array, Array]]


def tied(variables: Variables, batch: Batch, key: Key) -> Variables:
    """Sets the encoder of a sparse autoencoder to the transpose of its decoder, W_enc = W_dec^T.

    This is how sparse autoencoders are usually initialised: each latent then responds to the
    direction of its own decoder row.
    """
    return put(variables, KERNEL, get(variables, ATOMS).T)


def mean_square(centred: Array) -> tuple[Array, Array]:
    """Returns the factor that makes the mean square of centred data 1, and its inverse, f32[] each.

    The mean is over examples and dimensions. JumpReLU's default window, in which pre-activations
    give its thresholds a gradient, assumes this scale.
    """
    root = jnp.sqrt(jnp.mean(jnp.square(centred)))
    return 1.0 / _positive(root), _positive(root)


def expected_norm(centred: Array) -> tuple[Array, Array]:
    """Returns the factor that makes the mean norm of data f32[N, D] sqrt(D), and its inverse.

    Published weights of L1 terms assume this scale (Conerly et al. 2024).
    """
    mean = jnp.mean(jnp.linalg.norm(centred, axis=-1)) / centred.shape[-1] ** 0.5
    return 1.0 / _positive(mean), _positive(mean)


def unscaled(centred: Array) -> tuple[Array, Array]:
    """Returns the factor 1 and its inverse, so that `standardised` only removes the mean."""
    return jnp.ones(()), jnp.ones(())


def whitening(epsilon: float = 1e-3) -> Form:
    """Returns the ZCA scaling, a function for the argument `form` of `standardised`.

    It makes the dimensions of the data uncorrelated, with variance 1.

    Args:
      epsilon: a fraction of the mean variance that is added to each eigenvalue of the covariance,
        so that directions in which the data hardly varies are not amplified to noise.
    """

    def whitening(centred: Array) -> tuple[Array, Array]:
        covariance = centred.T @ centred / centred.shape[0]
        values, vectors = jnp.linalg.eigh(covariance)
        root = jnp.sqrt(jnp.maximum(values, 0.0) + epsilon * _positive(jnp.mean(values)))
        return (vectors / root[None]) @ vectors.T, (vectors * root[None]) @ vectors.T

    return whitening


def standardised(
    examples: Batch | Split | None = None,
    form: Form = mean_square,
    centre: bool = True,
    layers: bool | None = None,
) -> Initialise:
    """Returns an initialiser that sets every `Scale` of the model from the statistics of data.

    The encoder's scale is set from x, the decoder's from the target, and the scale of a skip
    connection from the context.

    Args:
      examples: the data. A split: its exact mean and variance are used (`Split.moments`), which an
        activation store has recorded and which are otherwise computed from all examples. A batch of
        some thousands of examples: its statistics are used. None: the first training batch.
      form: the scaling: `mean_square`, `expected_norm`, `unscaled` or `whitening()`. With a split
        only `mean_square` and `unscaled` are possible.
      centre: whether to remove the mean; latents die if a large mean is kept.
      layers: whether to scale each layer of data [B, layers, size] separately. With one scale for
        all, a layer with small norms would hardly influence the loss. None: True if examples have
        two axes, as a crosscoder's do.

    Raises:
      UserError: if a split is given with a `form` that cannot be computed from mean and variance.
    """
    moments = examples.moments if isinstance(examples, Split) else None
    if moments is not None and form not in (mean_square, unscaled):
        raise UserError(
            f"the scaling {form.__name__} cannot be computed from a split's mean and variance: "
            "call `standardised` with a Batch of examples, or with form=mean_square or unscaled"
        )

    def standardised(variables: Variables, batch: Batch, key: Key) -> Variables:
        data = examples if isinstance(examples, Batch) else batch
        sources = {INPUT_SCALE: "x", OUTPUT_SCALE: "target", SKIP_SCALE: "context"}
        found = False
        for path, name in sources.items():
            if _holds_scale(get(variables, path)):
                if moments is not None:
                    statistics = _from_moments(moments[name], form, centre, layers)
                else:
                    values = jnp.asarray(getattr(data, name))
                    statistics = _statistics(values, form, centre, layers)
                variables = put(variables, path, statistics)
                found = True
        if not found:
            raise UserError(
                "standardised found no Scale in the model: use Scale() as its encoder and "
                "Dictionary(..., scale=Scale()) as its decoder"
            )
        return variables

    return standardised


def base_rates(mean: Any, least: float = 1e-3) -> Initialise:
    """Returns an initialiser that sets the decoder's last bias to the logit of the data's mean.

    Before training starts, the decoder then outputs the mean of the data (Burda et al. 2016). This
    requires a Bernoulli likelihood and a decoder that ends in a dense layer, such as `nets.MLP`.

    Args:
      mean: f[*event], the mean of the target, between 0 and 1.
      least: the mean is clipped to [least, 1 - least], so that its logit is finite.
    """
    rates = jnp.clip(jnp.asarray(mean, jnp.float32).reshape(-1), least, 1.0 - least)
    logits = jnp.log(rates) - jnp.log1p(-rates)

    def base_rates(variables: Variables, batch: Batch, key: Key) -> Variables:
        path = ("params", "decoder", "output", "bias")
        bias = get(variables, path)
        if bias is None or bias.shape != logits.shape:
            found = "no such bias" if bias is None else f"one of {bias.size} numbers"
            raise UserError(
                f"base_rates needs a last dense layer with a bias of {logits.size} numbers, and "
                f"the decoder has {found}: use nets.MLP as the decoder, or leave out base_rates"
            )
        return put(variables, path, logits)

    return base_rates


def geometric_median(variables: Variables, batch: Batch, key: Key) -> Variables:
    """Sets b_dec, the dictionary's bias, to the geometric median of the (scaled) target.

    The median is computed by 100 steps of Weiszfeld's algorithm, as in the sparse autoencoders of
    OpenAI and of Marks et al. (dictionary_learning).
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
    """Returns an initialiser that gives each atom of a crosscoder the same norm in every layer.

    This follows Lindsey et al. 2024.

    Args:
      norm: the norm of an atom within one layer of the target [B, layers, size].
    """

    def layered(variables: Variables, batch: Batch, key: Key) -> Variables:
        atoms = get(variables, ATOMS)
        parts = atoms.reshape((-1, *batch.target.shape[1:]))
        lengths = jnp.maximum(safe_norm(parts)[..., None], 1e-12)
        return put(variables, ATOMS, (norm * parts / lengths).reshape(atoms.shape))

    return layered


def silent(variables: Variables, batch: Batch, key: Key) -> Variables:
    """Sets W_dec, the dictionary's atoms, to zero, as the library sparsify does for transcoders."""
    return put(variables, ATOMS, jnp.zeros_like(get(variables, ATOMS)))


def given(start: Variables) -> Initialise:
    """Returns an initialiser that starts from variables, such as those of `load` or `unfold`.

    What the model has beyond them, such as the price of a controller, keeps its initial value.

    Raises:
      UserError: if a parameter is not one of the model's, or has another shape than there.
    """
    entries: dict[str, Any] = traverse_util.flatten_dict(start, sep="/")

    def given(variables: Variables, batch: Batch, key: Key) -> Variables:
        own: dict[str, Any] = traverse_util.flatten_dict(variables, sep="/")
        for path, value in entries.items():
            shape = jnp.shape(own[path]) if path in own else None
            if path.startswith("params/") and shape != jnp.shape(value):
                there = "is not there" if shape is None else f"has the shape {shape}"
                raise UserError(
                    f"{path}, of shape {jnp.shape(value)}, cannot start this model, where "
                    f"it {there}: give variables of the same parts and sizes"
                )
        return traverse_util.unflatten_dict({**own, **entries}, sep="/")

    return given


def matched(model: Any) -> Initialise:
    """Returns an initialiser that rescales the encoder so that outputs have the norms of targets.

    With the new encoder, output - bias and target - bias have the same mean norm on the first
    batch, where bias is that of the decoder (Gao et al. 2024). This is exact if scaling the
    encoder's kernel scales the code by the same factor, as for ReLU and TopK with a zero encoder
    bias.

    Args:
      model: the Autoencoder whose variables the initialiser will receive.
    """

    def matched(variables: Variables, batch: Batch, key: Key) -> Variables:

        def lengths(model: Any) -> tuple[Array, Array]:
            bias = model.decoder.weights(model.bottleneck.latents).bias[None]
            output = model.decoder.combine(model.posterior(batch).z)
            zero = model.decoder.finish(jnp.broadcast_to(bias, output.shape), batch.context)
            wanted = model.decoder.measure(batch.target - zero, batch.context)
            return jnp.mean(safe_norm(wanted)), jnp.mean(safe_norm(output))

        wanted, had = model.apply(variables, method=lengths)
        kernel = get(variables, KERNEL)
        return put(variables, KERNEL, kernel * wanted / _positive(had))

    return matched


def _from_moments(
    moments: Sequence[Moments], form: Form, centre: bool, layers: bool | None
) -> dict[str, Array]:
    """Computes what a `Scale` stores (name -> array) from the exact moments of each layer.

    The arguments are those of `standardised`. Sums are in float64.
    """
    mean = np.concatenate([m.mean for m in moments])
    sizes = np.asarray([len(m.mean) for m in moments])
    variance = np.asarray([m.scale**2 for m in moments])
    squares = variance if centre else variance + [np.mean(np.square(m.mean)) for m in moments]
    if form is unscaled:
        squares = np.ones_like(squares)
    whole = np.sum(squares * sizes) / np.sum(sizes)
    root = np.sqrt(np.repeat(squares, sizes) if len(moments) > 1 and layers is not False else whole)
    root = np.where(root > 0, root, 1.0)
    spread = np.sqrt(np.sum(variance * sizes))
    found = {
        "mean": mean if centre else np.zeros_like(mean),
        "factor": 1.0 / root,
        "inverse": root,
        "gamma": np.linalg.norm(mean) / (spread if spread > 0 else 1.0),
    }
    return {name: jnp.asarray(value, jnp.float32) for name, value in found.items()}


def _statistics(values: Array, form: Form, centre: bool, layers: bool | None) -> dict[str, Array]:
    layers = values.ndim == 3 if layers is None else layers
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
    """Returns the value, or 1 if it is not positive because the data does not vary."""
    return jnp.where(value > 0, value, 1.0)


def _holds_scale(memory: Any) -> bool:
    return memory is not None and {"mean", "factor", "inverse"} <= set(memory)
