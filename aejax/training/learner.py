"""The learner: the pure functions that train a model on an objective by an optimiser.

features = encoder(x)                         is computed once for all draws
codes    = bottleneck(features, key_k)        is drawn K times
cost     = terms(codes, decoder(codes))       has shape f32[K, B]
loss     = bound(ratio) + mean(penalty)       reduces the cost over K; its mean over B is the loss
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.core.scope import LazyRng

from aejax import bounds
from aejax.checks import check_is_key, check_not_rbg
from aejax.events import as_batch
from aejax.objective import Total, total
from aejax.training.arguments import check_arguments, sticking
from aejax.types import (
    Array,
    Batch,
    Bound,
    Key,
    Learner,
    Metrics,
    Objective,
    State,
    Support,
    Variables,
)
from aejax.variables import remembered, unpacked

LINE_SEARCHES = (optax.ScaleByZoomLinesearchState, optax.ScaleByBacktrackingLinesearchState)
Initialise = Callable[[Variables, Batch, Key], Variables]


def learner(
    model: Any,
    objective: Objective,
    tx: optax.GradientTransformation | optax.MultiSteps,
    draws: int = 1,
    bound: Bound = bounds.mean,
    initialise: Initialise | Sequence[Initialise] = (),
) -> Learner:
    """Returns a Learner, the functions that train one model: init, step, variables and evaluate.

    Args:
      model: an `Autoencoder`, or any module with the methods features, code and explain.
      objective: the loss as a mapping from a name to (weight, term).
      tx: the optax optimiser; it may read the loss, as optax.contrib.reduce_on_plateau does, or
        evaluate it for other parameters, as optax.lbfgs does.
      draws: K, the number of codes that are drawn for each example.
      bound: how the log-ratios of the K draws are reduced to one cost per example (`ae.bounds`).
      initialise: one or more functions (variables, batch, key) -> variables that are applied to the
        model's initial variables, such as `ae.initialise.tied`.

    Returns:
      A Learner. The metrics of its `step` are f32[]: `loss`, `grad_norm`, the mean of each term
      without its weight; if tx uses optax.inject_hyperparams, `learning_rate`; and if it uses
      optax.contrib.reduce_on_plateau, `plateau_scale`, by which this multiplies the updates. Its
      `evaluate` returns the loss and the terms' means, and does not change the memory.

    Raises:
      UserError: if an argument is of another kind, if draws < 1, if draws is 1 and the bound needs
        several draws, if the objective has no term or a term has no weight, if the bound cannot use
        a term, or if the bottleneck has a target `l0` but the objective has no term whose weight is
        adjusted to reach it, or vice versa. The returned functions raise UserError for an rbg key
        if draws > 1.
    """
    check_arguments(model, objective, tx, draws, bound)
    if isinstance(tx, optax.MultiSteps):  # its own gradient_transformation() drops the loss
        tx = optax.GradientTransformationExtraArgs(tx.init, tx.update)  # pyright: ignore
    update = optax.with_extra_args_support(tx).update
    initialisers = (initialise,) if callable(initialise) else tuple(initialise)

    def init(key: Key, batch: Batch) -> State:
        check_is_key(key)
        _check_key(key, draws)
        batch = _as_batch(batch)
        params_key, noise_key, initialise_key, run_key = jax.random.split(key, 4)

        def touch(model: nn.Module, batch: Batch) -> None:
            # The terms are evaluated too, so that modules which only they call, such as priors and
            # critics, get their parameters.
            total(objective, model, model(batch, noise_key, 0))

        variables = nn.meta.unbox(nn.init(touch, model)(_rngs(params_key), batch))
        for i, initialiser in enumerate(initialisers):
            variables = initialiser(variables, batch, jax.random.fold_in(initialise_key, i))
        params = variables["params"]
        memory = remembered(variables)
        return State(jnp.zeros((), jnp.int32), run_key, params, memory, tx.init(params))

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        _check_key(state.key, draws)
        batch = _as_batch(batch)
        key = jax.random.fold_in(state.key, state.step)

        def loss(params: Any) -> tuple[Array, tuple[Any, dict[str, Array]]]:
            result, memory = _pass(
                model, objective, bound, draws, params, state.memory, batch, key, state.step
            )
            means = _means(bound, result, batch.weight)
            return means["loss"], (memory, means)

        (_, (memory, means)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        # Some transformations read the loss, as reduce_on_plateau does, and all others ignore it.
        # Line searches, such as that of lbfgs, evaluate it for other parameters.
        further: dict[str, Any] = {"value": means["loss"]}
        if _holds(state.opt, LINE_SEARCHES):
            further |= {"grad": grads, "value_fn": lambda params: loss(params)[0]}
        updates, opt = update(grads, state.opt, state.params, **_accepted(update, further))
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "loss": means["loss"],
            "grad_norm": optax.tree.norm(grads),
            **means,
            **_rate(opt),
        }
        return State(state.step + 1, state.key, params, memory, opt), metrics

    def variables(state: State) -> Variables:
        return unpacked(state.params, state.memory)

    def evaluate(variables: Variables, batch: Batch, key: Key, step: Array) -> Metrics:
        bound_model, batch = model.bind(variables), _as_batch(batch)

        def draw(key: Key) -> Total:
            return total(objective, bound_model, bound_model(batch, key, step))

        return _means(bound, jax.vmap(draw)(jax.random.split(key, draws)), batch.weight)

    support = getattr(getattr(model, "likelihood", None), "support", None)
    support = None if support is None else Support(*support)
    subtracts = getattr(getattr(model, "bottleneck", None), "subtract_bias", False)
    return Learner(init, step, variables, evaluate, support=support, subtracts_bias=subtracts)


def _holds(opt: Any, kinds: tuple[type, ...]) -> bool:
    """Returns whether the state of an optimiser has a part of one of the given classes."""
    leaves = jax.tree.leaves(opt, is_leaf=lambda node: isinstance(node, kinds))
    return any(isinstance(node, kinds) for node in leaves)


def _accepted(function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Returns those of the named arguments that a function accepts."""
    parameters = inspect.signature(function).parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return arguments
    return {name: value for name, value in arguments.items() if name in parameters}


def _as_batch(batch: Any) -> Batch:
    """Returns a Batch unchanged, and an array or a split as a Batch."""
    return batch if isinstance(batch, Batch) else as_batch(batch)


def _means(bound: Bound, result: Total, weight: Array | None) -> dict[str, Array]:
    """Returns "loss" and, by its name, the mean of each term without its weight, f32[] each.

    Args:
      bound: how the cost of the K draws is reduced.
      result: the values of the objective, f32[K, B].
      weight: the weights of the batch's examples, f32[B], which multiply each example's values;
        None: all are 1.
    """

    def mean(values: Array) -> Array:
        if weight is not None:
            values = values * jnp.broadcast_to(weight, values.shape)
        return jnp.mean(values)

    cost = bound.reduce(result.ratio) + jnp.mean(result.penalty, axis=0)
    means = {name: mean(value) for name, value in result.values.items()}
    return {"loss": mean(cost), **means}


def _rate(opt: Any) -> dict[str, Array]:
    """Returns the learning rate and the plateau factor, f32[] each, that the optimiser's state has.

    The result has "learning_rate" if optax.inject_hyperparams stored it in `opt`, and
    "plateau_scale", the factor of the updates, if the optimiser uses
    optax.contrib.reduce_on_plateau.
    """
    found = optax.tree.get_all_with_path(opt, "learning_rate")
    rates = [value for _, value in found if isinstance(value, jax.Array) and value.ndim == 0]
    rate = {"learning_rate": jnp.asarray(rates[0])} if len(rates) == 1 else {}
    state = optax.contrib.ReduceLROnPlateauState
    leaves = jax.tree.leaves(opt, is_leaf=lambda node: isinstance(node, state))
    scales = [jnp.asarray(node.scale) for node in leaves if isinstance(node, state)]
    return {**rate, "plateau_scale": scales[0]} if len(scales) == 1 else rate


def _check_key(key: Key, draws: int) -> None:
    if draws > 1:
        check_not_rbg(
            key, f"rbg keys give all {draws} draws the same noise under vmap: use threefry keys"
        )


def _rngs(key: Key) -> dict[str, Any]:
    """Returns the random keys that layers such as Dropout draw from, by their Flax names.

    Every name but "dropout" and "default" falls back on the key "params".
    """
    return {"params": key, **{name: LazyRng.create(key, name) for name in ("dropout", "default")}}


def _pass(
    model: Any,
    objective: Objective,
    bound: Bound,
    draws: int,
    params: Any,
    memory: Any,
    batch: Batch,
    key: Key,
    step: Array,
) -> tuple[Total, Any]:
    """Draws K codes of each example, decodes them, and computes the terms of the objective.

    The model's methods features, code and explain run one after the other. Each gets the memory
    that the one before it returned, as in one call of the model.

    Returns:
      A Total with arrays f32[K, B], and the memory after the step.
    """

    def run(memory: Any, key: Key, method: str, *arguments: Any) -> tuple[Any, Any]:
        variables = unpacked(params, memory)
        mutable = [name for name in variables if name != "params"]
        result, changed = model.apply(
            variables, batch, *arguments, method=method, mutable=mutable, rngs=_rngs(key)
        )
        return result, remembered(nn.meta.unbox({**variables, **changed}))

    def code(key: Key) -> tuple[Any, Any]:
        return run(seen, key, "code", features, key, step)

    def explain(code: Any, key: Key) -> tuple[Total, Any]:
        forward, changed = run(chosen, key, "explain", features, code, step, key)
        # The terms read an immutable model with the memory from before the step, so no term can
        # change the value of another.
        return total(objective, model.bind(unpacked(params, memory)), forward), changed

    features, seen = run(memory, key, "features")
    if draws == 1:
        # For a single draw vmap is avoided, because it would turn lax.cond into a select.
        drawn, chosen = code(key)
        result, changed = explain(drawn, key)
        return jax.tree.map(lambda a: a[None], result), changed

    keys = jax.random.split(key, draws)
    # The memory of draw 0 is kept, because an average over draws of counters would be meaningless.
    codes, memories = jax.vmap(code)(keys)
    chosen = jax.tree.map(lambda a: a[0], memories)
    result, memories = jax.vmap(explain)(codes, keys)
    changed = jax.tree.map(lambda a: a[0], memories)
    if bound.regrade is not None:
        stuck = jnp.zeros(())
        for weight in sticking(objective):
            now: Any = weight(step) if callable(weight) else weight
            stuck = stuck + now
        tapped, zeros = _tap(bound.regrade, codes, stuck, draws, batch.target.shape[0])
        # Penalties keep the gradient of the untapped codes, because the bound does not weight them.
        # If the objective has no penalty, XLA removes that first pass as dead code.
        penalty = result.penalty
        result, _ = jax.vmap(explain)(tapped, keys)
        result = result._replace(ratio=result.ratio + zeros, penalty=penalty)
    return result, changed


def _tap(
    regrade: Callable[[Array, Array], Array], codes: Any, stuck: Array, draws: int, size: int
) -> tuple[Any, Array]:
    """Returns codes with the same values but a changed gradient, and zeros f32[K, B].

    The caller adds the zeros to the cost. Their cotangent in the backward pass is then the weight w
    that the bound gives each draw, and the cotangent of the codes is multiplied by regrade(w) / w
    (Tucker et al. 2019, equation 8).

    Args:
      regrade: a function of (w, stuck) that returns the weights for the codes' gradient.
      codes: the codes of the K draws, leaves [K, B, ...].
      stuck: the weight of the term rate(stick=True), f32[].
      draws: the number of draws, K.
      size: the number of examples, B.
    """

    @jax.custom_vjp
    def tap(codes, stuck):
        return codes, jnp.zeros((draws, size))

    def forward(codes, stuck):
        return tap(codes, stuck), stuck

    def backward(stuck, cotangents):
        codes_bar, weight = cotangents
        # The loss divides by B and may weight examples, so w is normalised to sum to 1 over draws.
        weight = weight / jnp.sum(weight, axis=0, keepdims=True)
        safe = jnp.where(weight > 0, weight, 1.0)
        scale = jnp.where(weight > 0, regrade(weight, stuck) / safe, 0.0)

        def rescale(leaf):
            if leaf.dtype == jax.dtypes.float0:
                return leaf
            return leaf * scale.reshape(scale.shape + (1,) * (leaf.ndim - 2))

        return jax.tree.map(rescale, codes_bar), jnp.zeros_like(stuck)

    tap.defvjp(forward, backward)
    return tap(codes, stuck)
