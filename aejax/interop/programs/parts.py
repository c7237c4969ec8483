"""The exportable parts of a model as programs: decoder, encoder, both, or a folded dictionary.

    decoder      z, noise  -> mean, sample, draw      draw is a latent from the prior
    encoder      x         -> z, log_std, score
    all          x         -> z, log_std, mean, score
    dictionary   x         -> z, mean, score          plain weights on raw inputs

If the model was trained with a context, the program also has the input `context`. A decoder without
random draws has no input `noise`. A threshold adds the outputs `threshold` and `anomalous`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from aejax import losses
from aejax.contracts import DiagonalCode
from aejax.dictionaries import plain as dictionaries
from aejax.dictionaries.folding import fold
from aejax.errors import UserError
from aejax.events import dense
from aejax.interop.programs.noise import Undrawable, columns, draw
from aejax.interop.programs.program import Arrays, Program
from aejax.nets.call import MissingParameter
from aejax.types import Array, Batch, Forward, Term, Variables

Spec = jax.ShapeDtypeStruct


def decoder(model: Any, variables: Variables, example: Batch | None = None) -> Program:
    """Returns the program from a latent z to the likelihood's mean and a sample of it.

    If the model has a prior, the program also returns a latent drawn from the prior.

    Args:
      model: an Autoencoder.
      variables: the variables of one model, without an axis of seeds.
      example: a batch with a context; None for a model that was trained without a context.
    """
    latents = _latents(model, variables, example)
    context = _context(example)

    def predicted(bound: Any, inputs: Arrays) -> Any:
        given = _given(context, inputs)
        return bound.decode(bound.lift(_nested(model, inputs), given), given)

    def prior(key: Any, inputs: Arrays) -> Any:
        bound = model.bind(inputs["weights"])
        return bound.sample_latent(key, inputs["rows"].shape[0], _given(context, inputs))

    def likelihood(key: Any, inputs: Arrays) -> Array:
        bound = model.bind(inputs["weights"])
        return bound.likelihood.sample(key, inputs["prediction"])

    specs = {**latents, **context}
    examined = _examined(variables, specs, predicted, model)
    draws: dict[str, tuple[Callable[..., Any], int]] = {}
    facts: dict[str, str] = {}
    for name, part, function in (
        ("draw", model.prior, prior),
        ("sample", model.likelihood, likelihood),
    ):
        if part is None:
            continue
        try:
            with _traceable():
                draws[name] = function, columns(function, examined)
        except Undrawable as error:
            facts[name] = f"left out, because of how {type(part).__name__} draws: {error}"
    total = sum(count for _, count in draws.values())

    def run(weights: Any, inputs: Arrays) -> dict[str, Array]:
        bound = model.bind(weights)
        prediction = predicted(bound, inputs)
        found = {"mean": bound.mean(prediction)}
        seen = {**inputs, "weights": weights, "prediction": prediction}
        first, seen["rows"] = 0, jax.tree.leaves(prediction)[0]
        for name, (function, count) in draws.items():
            noise = inputs["noise"][:, first : first + count]
            first += count
            found |= _entries(name, draw(function, noise, seen))
        return found

    noise = {"noise": Spec((total,), jnp.float32)} if total else {}
    return Program("decoder", run, variables, {**specs, **noise}, facts)


def encoder(
    model: Any,
    variables: Variables,
    example: Batch,
    score: Term | None = None,
    threshold: float | None = None,
) -> Program:
    """Returns the program from x to its latent without noise and to a score of x.

    Args:
      model: an Autoencoder.
      variables: the variables of one model, without an axis of seeds.
      example: a batch; only its shapes and dtypes are read.
      score: the loss term that is the score; None: the rate in nats, or no score if the model has
        no prior.
      threshold: the score above which x counts as anomalous.
    """
    if score is None and model.prior is not None:
        score = _rate
    return _reading("encoder", model, variables, example, score, threshold)


def whole(
    model: Any,
    variables: Variables,
    example: Batch,
    score: Term | None = None,
    threshold: float | None = None,
) -> Program:
    """Returns the program from x to its latent without noise, its reconstruction and a score of x.

    Args:
      model: an Autoencoder.
      variables: the variables of one model, without an axis of seeds.
      example: a batch; only its shapes and dtypes are read.
      score: the loss term that is the score; None: the negative ELBO of the latent without noise,
        in nats, or the squared error of a model without a likelihood.
      threshold: the score above which x counts as anomalous.
    """
    return _reading("all", model, variables, example, score or _negative_elbo, threshold)


def dictionary(
    model: Any, variables: Variables, example: Batch | None = None, threshold: float | None = None
) -> Program:
    """Returns the program from x to a sparse dictionary's activations, output and squared error.

    Its weights are folded to plain weights on raw inputs.

    Args:
      model: a sparse Autoencoder, or an `ae.dictionary.Plain`, whose variables are not read.
      variables: the variables of one model, without an axis of seeds.
      example: a batch whose x has the shape of the inputs; None: inputs are f32[B, d].
      threshold: the squared error above which x counts as anomalous.
    """
    plain = model if isinstance(model, dictionaries.Plain) else fold(model, variables)
    size = plain.W_enc.shape[0]
    arrays = {n: v for n, v in plain._asdict().items() if isinstance(v, jax.Array | np.ndarray)}
    own = {n: v for n, v in plain.own.items() if isinstance(v, jax.Array | np.ndarray)}
    event = (size,) if example is None else tuple(example.x.shape[1:])
    same = size == plain.W_dec.shape[1]

    def run(weights: Any, inputs: Arrays) -> dict[str, Array]:
        seen = plain._replace(**weights["plain"], own={**plain.own, **weights["own"]})
        x = inputs["x"].reshape((-1, size))
        codes = dictionaries.encode(seen, x)
        output = dictionaries.decode(seen, codes, x)
        found = {"z": codes, "mean": output.reshape(inputs["x"].shape) if same else output}
        if same:  # a transcoder has no error, since its target is not an input
            error = jnp.sum(jnp.square(x - output.reshape(x.shape)), axis=-1)
            found |= _judged(error, threshold)
        return found

    weights = {"plain": arrays, "own": own}
    return Program("dictionary", run, weights, {"x": Spec(event, jnp.float32)})


def _reading(
    name: str,
    model: Any,
    variables: Variables,
    example: Batch,
    score: Term | None,
    threshold: float | None,
) -> Program:
    """Returns the program `name`, "encoder" or "all", whose input is x.

    The other arguments are those of `encoder` and `whole`.
    """
    if threshold is not None and score is None:
        raise UserError(
            "there is a threshold but no score: give the term that scores x, such as "
            "ae.losses.squared_error"
        )
    context = _context(example)
    specs = {"x": _spec(example.x), **context}
    facts = {}
    if score not in (None, _rate) and _spec(example.target) != _spec(example.x):
        facts["score"] = "left out, because this model explains another target than x"
        if threshold is not None:
            raise UserError(
                "this model explains another target than x, so a program that sees x alone has no "
                "score to compare with a threshold: give no threshold"
            )
        score = None

    def run(weights: Any, inputs: Arrays) -> dict[str, Array]:
        bound, x = model.bind(weights), inputs["x"]
        # As in the library, an element that is NaN is missing and does not count in the score.
        seen = None
        if score is not None and jnp.issubdtype(x.dtype, jnp.floating):
            seen = jnp.where(jnp.isnan(x), 0.0, 1.0)
        batch = Batch(x, x, _given(context, inputs), seen)
        forward = bound(batch, None, 0)
        found = _entries("z", jax.tree.map(dense, forward.code.latent, is_leaf=_is_code))
        if isinstance(forward.code, DiagonalCode):
            found["log_std"] = forward.code.log_std
        if name == "all":
            found["mean"] = bound.mean(forward.prediction)
        return found | ({} if score is None else _judged(score(bound, forward), threshold))

    return Program(name, run, variables, specs, facts)


def _judged(score: Array, threshold: float | None) -> dict[str, Array]:
    if threshold is None:
        return {"score": score}
    limit = jnp.asarray(threshold, jnp.float32)
    return {"score": score, "threshold": limit, "anomalous": score > limit}


def _rate(model: Any, forward: Forward) -> Array:
    """Computes the KL of each example, f32[B], in closed form if the prior has one.

    Otherwise it computes log q(z | x) - log p(z) at the latent z without noise.
    """
    closed = model.prior.kl(forward.code, forward.batch.context, model.posterior)
    return losses.rate()(model, forward) if closed is None else jnp.sum(closed, axis=-1)


def _negative_elbo(model: Any, forward: Forward) -> Array:
    if model.likelihood is None:
        return losses.squared_error(model, forward)
    error = losses.distortion(model, forward)
    return error if model.prior is None else error + _rate(model, forward)


def _latents(model: Any, variables: Variables, example: Batch | None) -> dict[str, Spec]:
    """Returns the shapes and dtypes of one example's latents: z, or z_0, z_1 ... of a hierarchy."""
    shape = model.bottleneck.shape
    levels = shape if shape and isinstance(shape[0], tuple) else (shape,)
    dtype: DTypeLike = jnp.float32
    if example is not None:
        batch = jax.tree.map(lambda leaf: leaf[:1], example)
        latent = jax.eval_shape(lambda v: model.bind(v).encode(batch), variables)
        dtype = jax.tree.leaves(latent)[0].dtype
    names = ["z"] if levels is not shape else [f"z_{i}" for i in range(len(levels))]
    return {name: Spec(level, dtype) for name, level in zip(names, levels, strict=True)}


def _nested(model: Any, inputs: Arrays) -> Any:
    """Returns the latents among the inputs, z or z_0, z_1 ..., as one array or as a tuple."""
    if "z" in inputs:
        return inputs["z"]
    return tuple(inputs[f"z_{i}"] for i in range(len(model.bottleneck.shape)))


def _context(example: Batch | None) -> dict[str, Spec]:
    """Returns the shape and dtype of the context by the name `context`, or {} if there is none.

    Raises:
      UserError: if the context is not a single array.
    """
    context = None if example is None else example.context
    if context is None:
        return {}
    if not isinstance(context, jax.Array | np.ndarray):
        raise UserError(
            f"the context of this model is a {type(context).__name__}, but a program supports only "
            "a context of one array: concatenate its arrays before training"
        )
    return {"context": _spec(context)}


def _given(context: Mapping[str, Spec], inputs: Arrays) -> Any:
    return inputs["context"] if context else None


def _spec(array: Any) -> Spec:
    return Spec(array.shape[1:], array.dtype)


def _entries(name: str, value: Any) -> dict[str, Array]:
    """Returns the arrays of a pytree by names: `name` for a single one, else name_0, name_1 ..."""
    leaves = jax.tree.leaves(value)
    if len(leaves) == 1:
        return {name: leaves[0]}
    return {f"{name}_{i}": leaf for i, leaf in enumerate(leaves)}


def _is_code(value: Any) -> bool:
    return hasattr(value, "combine")


def _examined(variables: Variables, specs: Mapping[str, Spec], predicted: Any, model: Any) -> Any:
    """Returns the shapes and dtypes of all that random draws may read, for a batch of two examples.

    Args:
      variables: the variables of the model.
      specs: the shape and dtype of each input for one example.
      predicted: a function (bound model, inputs) -> the decoder's prediction.
      model: the model.

    Returns:
      The inputs by name, and "weights", "prediction" and "rows", an array with a row per example.
    """
    batch = {name: Spec((2, *spec.shape), spec.dtype) for name, spec in specs.items()}
    with _traceable():
        prediction = jax.eval_shape(lambda v, i: predicted(model.bind(v), i), variables, batch)
    rows = jax.tree.leaves(prediction)[0]
    return {**batch, "weights": variables, "prediction": prediction, "rows": rows}


@contextlib.contextmanager
def _traceable() -> Iterator[None]:
    """Turns errors of tracing a decoder or a prior into a UserError that names the usual cause."""
    try:
        yield
    except (UserError, Undrawable):
        raise
    except MissingParameter as error:
        raise UserError(
            "the variables lack a parameter of the model, perhaps because they come from "
            "model.init, which makes only those of a forward pass and none of the prior: give "
            f"those of a learner ({' '.join(str(error).split())[:120]})"
        ) from error
    except Exception as error:  # flax and jax raise errors of many kinds
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            "the decoder cannot be traced from its latents alone; if the model was trained with a "
            f"context, give an example batch that has one ({reason})"
        ) from error
