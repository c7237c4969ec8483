"""The types of sparse autoencoder ("codes") that experiments compare at the same L0.

Their models and trainings are the recipes of the library, except for two: TopK that ranks latents
as SAELens does, and AbsTopK, which keeps the activations of largest absolute value, with their
signs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import aejax as ae
from aejax import evaluation, recipes
from aejax.dictionaries.recipe import Recipe
from aejax.types import Variables
from experiments.shared.training import Job, Trained

Event = tuple[int, ...]


class Shape(NamedTuple):
    """The sizes and training settings that all codes of an experiment share."""

    event: Event  # the shape of one example
    latents: int  # the number of latents, m
    room: int  # slots that store an example's active latents: the largest L0 of the sweep
    steps: int  # training steps
    learning_rate: float | None = None  # Adam's learning rate; None: the recipes' default


def codes(shape: Shape) -> dict[str, Callable[[Any], Job]]:
    """Returns a dict from the name of each type of sparse autoencoder to a function k -> `Job`.

    k is the number of active latents, and a `Job` is a model and its training. k may be a tracer,
    so that one compiled program trains a type at several values of k.
    """
    event, m, room = shape.event, shape.latents, shape.room
    numbers: dict[str, Any] = {"steps": shape.steps, "learning_rate": shape.learning_rate}

    def steered(make: Callable[..., Recipe]) -> Callable[[Any], Job]:
        return lambda k: job(make(event, m, l0=k, **numbers))

    def batched(make: Callable[..., Recipe]) -> Callable[[Any], Job]:
        return lambda k: job(make(event, m, k, slots=room, **numbers))

    def largest(kind: Callable[..., Any] = ae.TopK, auxk: float = 1 / 32, **options: Any) -> Any:
        def make(k: Any) -> Job:
            made = recipes.topk(event, m, room, active=k, auxk=auxk, **numbers)
            code = kind(m, room, active=k, **options)
            return job(made._replace(model=made.model.clone(bottleneck=code)))

        return make

    return {
        "topk": largest(),
        # SAELens' form of TopK ranks latents by the norm of what they add to the reconstruction
        # rather than by activation, and gives AuxK the weight 1.
        "topk-by-norm": largest(auxk=1.0, score_by_norm=True),
        "batchtopk": batched(recipes.batchtopk),
        "matryoshka": batched(recipes.matryoshka),
        "jumprelu": steered(recipes.jumprelu),
        "gated": steered(recipes.gated),
        "l1": steered(recipes.relu),
        "april": steered(recipes.april),
        "annealed": steered(recipes.annealed),
        "abstopk": largest(ae.AbsTopK),
    }


def job(recipe: Recipe) -> Job:
    """Returns the `Job` that trains a recipe's model with its loss, optimiser and initialisers."""
    return Job(recipe.model, recipe.objective, recipe.tx, initialise=recipe.initialise)


def swept(make: Callable[[Any], Job], numbers: Sequence[float]) -> Job:
    """Returns one `Job` that trains the models of make(n), for all n of `numbers`, together.

    They are trained in one compiled program, on the same batches.
    """
    return make(numbers[0])._replace(sweep=make, settings=tuple(numbers))


def at_each(
    trained: Trained, measure: Callable[[Any, Variables], Mapping[str, Any]]
) -> list[dict[str, np.ndarray]]:
    """Scores all models of a sweep.

    Args:
      trained: a job with a sweep, after training.
      measure: a function (model, variables of one trained model) that returns scores by name.

    Returns:
      For each setting of the sweep, in order: name of a score -> f64[seeds].
    """
    job = trained.job
    assert job.sweep is not None
    seeds = trained.seeds // len(job.settings)
    members = list(evaluation.each(trained.variables, trained.seeds))
    rows = []
    for i, setting in enumerate(job.settings):
        model = job.sweep(setting).model
        each = [measure(model, v) for v in members[i * seeds : (i + 1) * seeds]]
        rows.append({name: np.array([row[name] for row in each]) for name in each[0]})
    return rows


def priced(shape: Shape, price: Any) -> Job:
    """Returns the `Job` of a ReLU code with the fixed L1 weight `price`, which may be a tracer."""
    numbers: dict[str, Any] = {"steps": shape.steps, "learning_rate": shape.learning_rate}
    return job(recipes.relu(shape.event, shape.latents, weight=price, **numbers))
