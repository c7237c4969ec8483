"""What a recipe is: the arguments with which `ae.learner` trains one type of sparse code.

All recipes share four choices. The model centres its data and scales them to mean square 1, so that
training does not depend on the scale of the data. Adam's learning rate is a share of the size of an
atom's entries, and falls to 0 over the last fifth of the steps, if their number is known.
Thresholds are trained as logarithms, which Adam changes by about its learning rate in a step,
whatever the scale of the data. They have a learning rate of their own, or they would need tens of
thousands of steps. For the same reason the encoder's biases have one in a code that a penalty makes
sparse: without thresholds, it is its biases that silence latents. If a controller adjusts the
weight of the sparsity penalty ("price") to reach an L0, gradients are clipped, because their norms
change manyfold.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax
import optax

from aejax.bottlenecks import Sparse
from aejax.checks import sensible, whole
from aejax.dictionaries.unit_rows import unit_rows
from aejax.errors import UserError
from aejax.model import Autoencoder
from aejax.nets import Dictionary, Scale
from aejax.objective import steer
from aejax.training.initialise import Initialise, standardised
from aejax.types import Batch, Key, Objective, Term, Variables
from aejax.variables import KERNEL, get, put

Event = int | Sequence[int]
# The learning rate is RATE / sqrt(D): 3e-3 for D = 32, 6e-4 for D = 768. Adam moves an entry by
# about its rate in a step, and an atom of norm 1 has entries of about 1 / sqrt(D), so 60 steps in
# one direction change an entry by about its own size.
RATE = 1 / 60
THRESHOLD_RATE = 5e-3  # the learning rate of thresholds, which are logarithms
CLIP = 1.0  # the largest norm of the gradient if L0 is steered, as in Conerly et al. 2024


class Recipe(NamedTuple):
    """A complete way to train one sparse code.

    ae.learner(recipe.model, recipe.objective, recipe.tx, initialise=recipe.initialise)
    """

    model: Autoencoder
    objective: Objective
    tx: optax.GradientTransformation  # the optimiser
    initialise: tuple[Initialise, ...]


class Training(NamedTuple):
    """The settings of training on which a recipe's schedules depend."""

    steps: int | None  # the number of training steps; None: unknown, so that no rate falls
    learning_rate: Any  # Adam's learning rate, which a sweep may trace; None: RATE / sqrt(D)

    def steered(self, l0: Any) -> dict[str, Any]:
        """Returns the bottleneck's arguments for a target of l0 active latents, or {} for None."""
        if l0 is None:
            return {}
        return {"l0": l0} if self.steps is None else {"l0": l0, "descent": max(self.steps // 2, 1)}

    def adam(self, rate: Any) -> optax.GradientTransformation:
        """Returns Adam with the learning rate `rate`.

        If the number of steps is known, the rate falls to 0 over the last fifth of the steps.
        """
        if self.steps is None:
            return optax.adam(rate)
        fall = max(self.steps // 5, 1)
        return optax.adam(optax.linear_schedule(rate, 0.0, fall, self.steps - fall))


def sparsity(name: str, penalty: Term, l0: Any, weight: Any) -> Objective:
    """Returns a sparsity penalty whose weight is fixed, or adjusted by a controller to reach l0.

    Args:
      name: the recipe's name, for the error message.
      penalty: the sparsity penalty.
      l0: the mean number of active latents to reach, or None.
      weight: the penalty's weight, a number or a schedule, or None.

    Raises:
      UserError: unless exactly one of l0 and weight is given.
    """
    if (l0 is None) == (weight is None):
        given = "neither" if l0 is None else "both"
        raise UserError(
            f"the recipe {name} was given {given} of l0 and weight: give l0, the mean number of "
            "active latents that it should reach, or weight, the fixed weight of its penalty"
        )
    return steer(penalty) if weight is None else {"price": (weight, penalty)}


def recipe(
    code: Sparse,
    dictionary: Dictionary,
    objective: Objective,
    training: Training,
    start: Sequence[Initialise],
    unit: bool = False,
) -> Recipe:
    """Builds a recipe of a code, a dictionary and an objective.

    Args:
      code: the bottleneck.
      dictionary: the decoder, without a `scale`, which is added here.
      objective: the loss.
      training: the number of steps and the learning rate.
      start: the initialisers that follow `standardised`.
      unit: whether the optimiser keeps the atoms at norm 1.
    """
    steps = training.steps
    if steps is not None and not sensible(steps, lambda n: whole(n) and n >= 1):
        raise UserError(f"the recipe has steps = {steps}: give a number of 1 or more, or None")
    rate = training.learning_rate
    rate = default_rate(dictionary.shape) if rate is None else rate
    rates: dict[Any, Any] = {
        "threshold": training.adam(THRESHOLD_RATE),
        "rest": training.adam(rate),
    }
    if "price" in objective:
        # A pre-activation is a sum over D inputs of mean square 1, so with the rate of the weights,
        # a bias would change it more slowly than they do by a factor of up to sqrt(D).
        rates["bias"] = training.adam(math.sqrt(_size(dictionary.shape)) * rate)
    tx = optax.multi_transform(rates, functools.partial(_labels, apart=rates.keys()))
    if code.l0 is not None:
        tx = optax.chain(optax.clip_by_global_norm(CLIP), tx)
    tx = optax.chain(tx, unit_rows()) if unit else tx
    model = Autoencoder(Scale(), code, dictionary.clone(scale=Scale()))
    return Recipe(model, objective, tx, (standardised(), *start))


def default_rate(event: Event) -> float:
    """Returns the recipes' learning rate for examples of shape `event`, RATE / sqrt(D)."""
    return RATE / math.sqrt(_size(event))


def _size(event: Event) -> int:
    return math.prod((event,) if isinstance(event, int) else event)


def quiet(variables: Variables, batch: Batch, key: Key) -> Variables:
    """Initialises the encoder at norm 0.1 beside atoms of norm 1, as dictionary_learning does.

    With an encoder of norm 1 the latents of an L1 code start as large as the data, and many end up
    active but tiny.
    """
    return put(variables, KERNEL, 0.1 * get(variables, KERNEL))


def _labels(params: Any, apart: Collection[str]) -> Any:
    """Returns the name of each parameter's optimiser: "threshold", "bias" or "rest".

    Args:
      params: the parameters of the model.
      apart: the names of the optimisers that there are. "bias" is that of the biases of the
        pre-activations, which only the bottleneck has; without it they belong to "rest".
    """

    def label(path: Any, _: Any) -> str:
        name = jax.tree_util.keystr(path[-1:])
        if "threshold" in name:
            return "threshold"
        inside = "bottleneck" in jax.tree_util.keystr(path[:1])
        biases = inside and ("bias" in name or "b_mag" in name)
        return "bias" if biases and "bias" in apart else "rest"

    return jax.tree_util.tree_map_with_path(label, params)
