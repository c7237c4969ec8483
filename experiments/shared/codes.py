"""The sparse codes that experiments compare, each after its paper, all of them at one L0.

What is not the paper's: prices are steered, L1 resamples no latents, JumpReLU's start, window and
learning rate of thresholds are made for runs of thousands of steps, not of hundreds of thousands.
Codes that do not fix the number of active latents get it from a steered price (`losses.priced`), so
all are compared at one L0. Data is centred and scaled to mean square 1 inside the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import aejax as ae
from aejax import evaluation, losses
from aejax.dictionaries import recipes
from aejax.dictionaries.unit_rows import unit_rows
from aejax.types import Variables
from aejax.variables import KERNEL, get, put
from experiments.shared.training import Part, Trained

Event = tuple[int, ...]


class Shape(NamedTuple):
    """What all codes of an experiment share."""

    event: Event  # of one example
    latents: int  # m
    room: int  # slots of an example: the largest number of active latents that is asked for
    steps: int
    learning_rate: float  # of Adam, falling to zero over the last fifth of the steps
    revival: float = 1 / 32  # weight of AuxK


def codes(shape: Shape) -> dict[str, Callable[[Any], Part]]:
    """Name -> (the number of active latents, which a sweep may trace) -> how it is trained."""
    m, room = shape.latents, shape.room
    stage = max(shape.steps // 8, 1)

    def wanted(k: Any) -> dict[str, Any]:
        return {"l0": k, "descent": max(shape.steps // 2, 1)}

    def gated(k: Any) -> Part:
        price = {"price": (1.0, losses.priced(losses.gate_l1()))}
        gate: ae.Objective = {"gate": (1.0, losses.gate_error()), **price}
        return _part(shape, ae.Gated(m, **wanted(k)), ae.merge(ae.sparse(), gate), unit=True)

    def jumprelu(k: Any) -> Part:
        # From atoms of norm 1 pre-activations start at the scale that they end at, and a window of
        # a half of it holds some of each batch. From norm 0.1 thresholds had to grow twentyfold:
        # they came late, passed their aim and did not come back.
        code = ae.JumpReLU(m, threshold=1.0, bandwidth=0.5, **wanted(k))
        return _part(shape, code, steered, norm=1.0)

    def by_norm(k: Any) -> Part:
        # SAELens' form of TopK: what a latent adds decides, not its activation, and AuxK counts in
        # full. On synth-sae's data it explains less and finds more of the features.
        code = ae.TopK(m, room, active=k, score_by_norm=True)  # pyright: ignore[reportCallIssue]
        return _part(shape, code, ae.sparse(revival=1.0))

    def batchtopk(k: Any, objective: ae.Objective) -> Part:
        return _part(shape, ae.BatchTopK(m, k, room), objective)  # pyright: ignore[reportCallIssue]

    def annealed(k: Any) -> Part:
        code = ae.AnnealedReLU(m, begin=2 * stage, every=stage, **wanted(k))
        return _part(shape, code, steered, unit=True)

    revived = ae.sparse(revival=shape.revival)
    steered = ae.sparse(steered=losses.penalty)  # what each class says of itself
    nested = recipes.matryoshka(losses.fractions(m), revival=shape.revival)
    return {
        "topk": lambda k: _part(shape, ae.TopK(m, room, active=k), revived),  # pyright: ignore[reportCallIssue]
        "topk-by-norm": by_norm,
        "batchtopk": lambda k: batchtopk(k, revived),
        "matryoshka": lambda k: batchtopk(k, nested),
        "jumprelu": jumprelu,
        "gated": gated,
        "l1": lambda k: _part(shape, ae.ReLU(m, **wanted(k)), steered, unit=True),
        "april": lambda k: _part(
            shape, ae.ReLU(m, **wanted(k)), ae.sparse(steered=losses.weighted_l1)
        ),
        "annealed": annealed,
        "abstopk": lambda k: _part(shape, ae.AbsTopK(m, room, active=k), revived),  # pyright: ignore[reportCallIssue]
    }


def swept(make: Callable[[Any], Part], numbers: Sequence[float]) -> Part:
    """A code at several numbers of active latents, side by side on one stream of batches."""
    return make(numbers[0])._replace(sweep=make, settings=tuple(numbers))


def at_each(
    trained: Trained, measure: Callable[[Any, Variables], Mapping[str, Any]]
) -> list[dict[str, np.ndarray]]:
    """What `measure` says of (model, variables of one member) at each setting, f64[seeds] each."""
    part = trained.part
    assert part.sweep is not None
    seeds = trained.seeds // len(part.settings)
    members = list(evaluation.each(trained.variables, trained.seeds))
    rows = []
    for i, setting in enumerate(part.settings):
        model = part.sweep(setting).model
        each = [measure(model, v) for v in members[i * seeds : (i + 1) * seeds]]
        rows.append({name: np.array([row[name] for row in each]) for name in each[0]})
    return rows


def priced(shape: Shape, price: Any) -> Part:
    """L1 with a price that is given, not steered; a sweep may trace it."""
    return _part(shape, ae.ReLU(shape.latents), ae.sparse(l1=price), unit=True)


def _part(
    shape: Shape, code: Any, objective: ae.Objective, unit: bool = False, norm: float = 0.1
) -> Part:
    """A code between a Scale and a dictionary whose atoms are free, or kept at norm 1."""
    norm = 1.0 if unit else norm
    dictionary = ae.nets.Dictionary(shape.event, norm=norm, scale=ae.nets.Scale())
    fall = max(shape.steps // 5, 1)

    def adam(rate: float) -> optax.GradientTransformation:
        return optax.adam(optax.linear_schedule(rate, 0.0, fall, shape.steps - fall))

    # Thresholds are in logarithms: at the others' rate they are hundreds of steps behind.
    rates: dict[Any, Any] = {
        "threshold": adam(3 * shape.learning_rate),
        "rest": adam(shape.learning_rate),
    }
    tx = optax.multi_transform(rates, _labels)
    if code.l0 is not None:
        # As in Conerly et al. 2024: where a price moves, some gradients are many times others.
        tx = optax.chain(optax.clip_by_global_norm(1.0), tx)
    tx = optax.chain(tx, unit_rows()) if unit else tx
    model = ae.Autoencoder(ae.nets.Scale(), code, dictionary)
    start = (ae.standardised(), ae.tied, quiet) if unit else (ae.standardised(), ae.tied)
    return Part(model, objective, tx, initialise=start)


def quiet(variables: Any, batch: ae.Batch, key: Any) -> Any:
    """Encoders of norm 0.1 beside atoms of norm 1 (Bricken et al. 2023, dictionary_learning).

    As long as their atoms, the latents of an L1 code start as large as the data and end alive but
    tiny.
    """
    return put(variables, KERNEL, 0.1 * get(variables, KERNEL))


def _labels(params: Any) -> Any:
    """ "threshold" for JumpReLU's parameter, "rest" for all others."""

    def label(path: Any, _: Any) -> str:
        return "threshold" if "log_threshold" in jax.tree_util.keystr(path) else "rest"

    return jax.tree_util.tree_map_with_path(label, params)
