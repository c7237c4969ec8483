"""The learner: model, objective and optimiser as a record of pure functions, one for every kind.

features = encoder(x)                         once
codes    = bottleneck(features, key_k)        K draws
cost     = terms(codes, decoder(codes))       f32[K, B]
loss     = bound(ratio) + mean(penalty)       over K, then over B
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from aejax import bounds, losses
from aejax.checks import check_not_rbg
from aejax.contracts import TrunkPrior
from aejax.errors import UserError
from aejax.objective import Total, total
from aejax.types import (
    Array,
    Batch,
    Bound,
    Key,
    Learner,
    Metrics,
    Objective,
    State,
    Variables,
)

Initialise = Callable[[Variables, Batch, Key], Variables]


def learner(
    model: Any,
    objective: Objective,
    tx: optax.GradientTransformation,
    draws: int = 1,
    bound: Bound = bounds.mean,
    initialise: Initialise | Sequence[Initialise] = (),
) -> Learner:
    """A learner of one model: init, step, variables, evaluate.

    Args:
      model: an `Autoencoder`, or any module with its methods features, code and explain.
      objective: name -> (weight, term).
      tx: the optimiser.
      draws: K, codes drawn for each example.
      bound: how the K values of the log-ratio become one cost.
      initialise: function(s) (variables, batch, key) -> variables, applied after init.

    Returns:
      A Learner whose metrics are f32[]: `loss`, `grad_norm` and each term's mean, unweighted; its
      `evaluate` gives the same but for `grad_norm`, with the memory left as it is.

    Raises:
      UserError: if draws < 1, if there is no optimiser, no term or no weight, or if a term cannot
        be used under the bound; when called with an rbg key and several draws.
    """
    if not (hasattr(tx, "init") and hasattr(tx, "update")):
        raise UserError(f"{tx!r} is no optimiser: give one of optax, as optax.adam(1e-3)")
    _check(objective, draws, bound)
    if bound.regrade is not None and isinstance(getattr(model, "prior", None), TrunkPrior):
        raise UserError(
            f"codes under {type(model.prior).__name__} are made of the prior's own trunk, whose "
            "gradient this bound would regrade with the encoder's: use bounds.iwae or miwae"
        )
    steps = (initialise,) if callable(initialise) else tuple(initialise)

    def init(key: Key, batch: Batch) -> State:
        _check_key(key, draws)
        params_key, noise_key, initialise_key, run_key = jax.random.split(key, 4)

        def touch(model: nn.Module, batch: Batch) -> None:
            # Priors, critics and pseudo-inputs are first touched in a term.
            total(objective, model, model(batch, noise_key, 0))

        variables = nn.init(touch, model)(params_key, batch)
        for i, change in enumerate(steps):
            variables = change(variables, batch, jax.random.fold_in(initialise_key, i))
        params = variables["params"]
        memory = variables.get("memory", {})
        return State(jnp.zeros((), jnp.int32), run_key, params, memory, tx.init(params))

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        _check_key(state.key, draws)
        key = jax.random.fold_in(state.key, state.step)

        def loss(params: Any) -> tuple[Array, tuple[Any, dict[str, Array]]]:
            variables = {"params": params, "memory": state.memory}
            result, memory = _pass(
                model, objective, bound, draws, variables, batch, key, state.step
            )
            figures = _summed(bound, result)
            return figures["loss"], (memory, figures)

        (_, (memory, figures)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt = tx.update(grads, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": figures["loss"], "grad_norm": optax.tree.norm(grads), **figures}
        return State(state.step + 1, state.key, params, memory, opt), metrics

    def variables(state: State) -> Variables:
        return {"params": state.params, "memory": state.memory}

    def evaluate(variables: Variables, batch: Batch, key: Key, step: Array) -> Metrics:
        bound_model = model.bind(variables)

        def draw(key: Key) -> Total:
            return total(objective, bound_model, bound_model(batch, key, step))

        return _summed(bound, jax.vmap(draw)(jax.random.split(key, draws)))

    support = getattr(getattr(model, "likelihood", None), "support", None)
    return Learner(init, step, variables, evaluate, support=support)


def _summed(bound: Bound, result: Total) -> dict[str, Array]:
    """The loss f32[] of a Total of f32[K, B], and each term's mean, unweighted."""
    cost = bound.reduce(result.ratio) + jnp.mean(result.penalty, axis=0)
    means = {name: jnp.mean(value) for name, value in result.values.items()}
    return {"loss": jnp.mean(cost), **means}


def _check(objective: Objective, draws: int, bound: Bound) -> None:
    if draws < 1:
        raise UserError(f"draws is {draws}, but at least one code must be drawn: set draws >= 1")
    if not objective:
        raise UserError("the objective has no term, so nothing would be learnt: give ae.elbo()")
    for name, entry in objective.items():
        if callable(entry):
            raise UserError(f"the term {name!r} needs a weight: (1.0, term)")
        weight, term = entry
        mark = losses.mark(term)
        if mark.part != "ratio" or weight is None:
            continue
        if bound.reduce is not bounds.mean.reduce and not mark.sampled:
            raise UserError(
                f"the term {name!r} is an expectation in closed form, which this bound cannot "
                "reduce over draws: use losses.rate() in its place"
            )
        alike = bound.reduce is bounds.mean.reduce or bound.regrade is not None
        if mark.stick and draws > 1 and not alike:
            raise UserError(
                f"the term {name!r} sticks the landing, which is biased for {draws} draws under "
                "this bound: use bounds.mean, one that regrades its weights, or draws = 1"
            )
    if bound.sticks and not _sticking(objective):
        raise UserError(
            "no rate of the objective sticks the landing, without which this bound regrades "
            "nothing: use losses.rate(stick=True), or bounds.iwae"
        )


def _sticking(objective: Objective) -> list[Any]:
    """The weights of the terms that stick the landing, numbers or schedules."""
    weighted = [(w, losses.mark(term)) for w, term in objective.values() if w is not None]
    return [weight for weight, mark in weighted if mark.part == "ratio" and mark.stick]


def _check_key(key: Key, draws: int) -> None:
    if draws > 1:
        check_not_rbg(
            key, f"rbg keys give all {draws} draws the noise of the first under vmap: use threefry"
        )


def _pass(
    model: Any,
    objective: Objective,
    bound: Bound,
    draws: int,
    variables: Variables,
    batch: Batch,
    key: Key,
    step: Array,
) -> tuple[Total, Any]:
    """K draws through bottleneck, decoder and terms: a Total of f32[K, B], and the new memory."""
    features = model.apply(variables, batch, method="features")

    def code(key: Key) -> tuple[Any, Any]:
        drawn, changed = model.apply(
            variables, batch, features, key, step, method="code", mutable=["memory"]
        )
        return drawn, changed.get("memory", variables["memory"])

    def explain(code: Any, key: Key) -> Total:
        # Immutable and with the memory that the pass saw: a term cannot change what it measures.
        bound_model = model.bind(variables)
        forward = bound_model.explain(batch, features, code, step, key)
        return total(objective, bound_model, forward)

    if draws == 1:
        # Without vmap, so that lax.cond stays a branch.
        drawn, memory = code(key)
        return jax.tree.map(lambda a: a[None], explain(drawn, key)), memory

    keys = jax.random.split(key, draws)
    codes, memories = jax.vmap(code)(keys)
    result = jax.vmap(explain)(codes, keys)
    if bound.regrade is not None:
        stuck = jnp.zeros(())
        for weight in _sticking(objective):
            now: Any = weight(step) if callable(weight) else weight
            stuck = stuck + now
        tapped, zeros = _tap(bound.regrade, codes, stuck, draws, batch.target.shape[0])
        # Penalties stay with the plain codes: the bound gives them no weight to be replaced.
        # Where nobody pays for one, the plain pass has no reader and is not compiled.
        penalty = result.penalty
        result = jax.vmap(explain)(tapped, keys)
        result = result._replace(ratio=result.ratio + zeros, penalty=penalty)
    # The memory of draw 0: an average of codebooks or ages would be none.
    return result, jax.tree.map(lambda a: a[0], memories)


def _tap(
    regrade: Callable[[Array, Array], Array], codes: Any, stuck: Array, draws: int, size: int
) -> tuple[Any, Array]:
    """The identity on the codes, and zeros f32[K, B] whose cotangent is the bound's weight.

    Added to the cost, the zeros let backward see the weight w that the bound gives each draw, and
    multiply the codes' cotangent by regrade(w) / w (Tucker et al. 2019, equation 8).
    """

    @jax.custom_vjp
    def tap(codes, stuck):
        return codes, jnp.zeros((draws, size))

    def forward(codes, stuck):
        return tap(codes, stuck), stuck

    def backward(stuck, cotangents):
        codes_bar, weight = cotangents
        # The loss divides by B and may weight examples: w sums to one over the draws.
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
