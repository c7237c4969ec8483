"""Checks the arguments of `learner`: whether model, objective, optimiser and bound fit together."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from aejax import bounds, losses
from aejax.contracts import TrunkPrior
from aejax.errors import UserError
from aejax.types import Bound, Objective


def check_arguments(model: Any, objective: Objective, tx: Any, draws: int, bound: Bound) -> None:
    """Checks that the arguments of `learner`, which its docstring describes, fit together.

    Raises:
      UserError: if an argument is of another kind than its entry in `learner` says, or does not fit
        the other arguments.
    """
    if not isinstance(bound, Bound):
        raise UserError(
            f"the bound is {bound!r}, which is not a Bound: give one such as bounds.iwae, or call "
            "the function that makes one, as in bounds.miwae(5)"
        )
    if not isinstance(objective, Mapping):
        raise UserError(
            f"the objective is {objective!r}, which is not a mapping from a name to (weight, "
            "term): call the function that makes one, as in ae.elbo()"
        )
    if not (hasattr(tx, "init") and hasattr(tx, "update")):
        raise UserError(
            f"tx is {tx!r}, which is not an optimiser: give an optax one, as optax.adam(1e-3)"
        )
    _check_objective(objective, draws, bound)
    _check_steering(model, objective)
    if bound.regrade is not None and isinstance(getattr(model, "prior", None), TrunkPrior):
        raise UserError(
            f"the prior {type(model.prior).__name__} shares its layers with the posterior, so this "
            "bound would change the prior's gradient too: use bounds.iwae or bounds.miwae"
        )


def _check_objective(objective: Objective, draws: int, bound: Bound) -> None:
    if not hasattr(draws, "__index__") or draws < 1:
        raise UserError(
            f"draws is {draws}, the number of codes drawn of each example: give a whole number, 1 "
            "or more"
        )
    if not objective:
        raise UserError("the objective has no term to train: give one, such as ae.elbo()")
    if draws == 1 and bound.reduce is not bounds.mean.reduce:
        raise UserError(
            "this bound reduces several draws, but draws is 1, which makes it the ELBO: set draws, "
            "such as draws=10, or use bounds.mean"
        )
    for name, entry in objective.items():
        if callable(entry):
            raise UserError(
                f"the term {name!r} of the objective has no weight: give it as (1.0, term)"
            )
        weight, term = entry
        if not callable(term):
            raise UserError(
                f"the entry {name!r} of the objective is ({weight!r}, {term!r}), whose second "
                "element is no term: give (weight, term), in this order"
            )
        _check_called(name, term)
        mark = losses.mark(term)
        if mark.part != "ratio" or weight is None:
            continue
        if bound.reduce is not bounds.mean.reduce and not mark.sampled:
            raise UserError(
                f"the term {name!r} is an expectation in closed form, which this bound cannot "
                "reduce over draws: use losses.rate() in its place"
            )
        unbiased = bound.reduce is bounds.mean.reduce or bound.regrade is not None
        if mark.stick and draws > 1 and not unbiased:
            raise UserError(
                f"the term {name!r} sticks the landing, which biases the gradient of this bound "
                f"with {draws} draws: use bounds.mean or bounds.dreg, or draws = 1"
            )
    if bound.sticks and not sticking(objective):
        raise UserError(
            "the bound, bounds.dreg or one like it, needs a rate that sticks the landing, but no "
            "term of the objective does: put losses.rate(stick=True) into the objective, or use "
            "bounds.iwae"
        )


def _check_called(name: str, term: Any) -> None:
    """Raises UserError if a term cannot be called with (model, forward)."""
    try:
        signature = inspect.signature(term)
    except (TypeError, ValueError):  # Some functions written in C have no signature.
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise UserError(
            f"the term {name!r} cannot be called with (model, forward), as {error}: give a "
            "function of these two, or call the one that makes the term, as in losses.mmd()"
        ) from None


def _check_steering(model: Any, objective: Objective) -> None:
    """Checks that a bottleneck's target for L0 and a term with an adjusted weight come together.

    Raises:
      UserError: if the bottleneck has a target for the number of active latents (L0) but the
        objective has no term whose weight is adjusted to reach it, or the reverse.
    """
    bottleneck = getattr(model, "bottleneck", None)
    target, name = getattr(bottleneck, "l0", None), type(bottleneck).__name__
    steered = [n for n, (w, t) in objective.items() if w is not None and losses.mark(t).steered]
    if target is not None and not steered:
        raise UserError(
            f"{name} is given a target for L0, but no term of the objective has a weight that is "
            "adjusted to reach it: use ae.sparse(steered=ae.losses.penalty) or one of ae.recipes, "
            "or leave out l0"
        )
    if steered and target is None:
        raise UserError(
            f"the weight of the term {steered[0]!r} is adjusted to reach a target L0, but {name} "
            f"is given no target: give it one, such as {name}(..., l0=32)"
        )


def sticking(objective: Objective) -> list[Any]:
    """Returns the weights (numbers or schedules) of the objective's terms rate(stick=True)."""
    weighted = [(w, losses.mark(term)) for w, term in objective.values() if w is not None]
    return [weight for weight, mark in weighted if mark.part == "ratio" and mark.stick]
