"""The sparse codes that experiments compare, each trained as its paper says, at one L0.

Codes that do not fix the number of active latents get it from a steered price (`losses.priced`), so
all are compared at one L0. Data is centred and scaled to mean square 1 inside the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

import aejax as ae
from aejax import losses, recipes
from aejax.transforms import unit_rows
from experiments.training import Part

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

    def steered(penalty: ae.Term) -> ae.Objective:
        return ae.sparse(steered=penalty)

    def gated(k: Any) -> Part:
        price = {"price": (1.0, losses.priced(losses.gate_l1()))}
        gate: ae.Objective = {"gate": (1.0, losses.gate_error()), **price}
        return _part(shape, ae.Gated(m, l0=k), ae.merge(ae.sparse(), gate), unit=True)

    def batchtopk(k: Any, objective: ae.Objective) -> Part:
        return _part(shape, ae.BatchTopK(m, k, room), objective)  # pyright: ignore[reportCallIssue]

    def annealed(k: Any) -> Part:
        code = ae.AnnealedReLU(m, begin=2 * stage, every=stage, l0=k)
        return _part(shape, code, steered(losses.lp), unit=True)

    revived = ae.sparse(revival=shape.revival)
    nested = recipes.matryoshka(losses.fractions(m), revival=shape.revival)
    return {
        "topk": lambda k: _part(shape, ae.TopK(m, room, active=k), revived),  # pyright: ignore[reportCallIssue]
        "batchtopk": lambda k: batchtopk(k, revived),
        "matryoshka": lambda k: batchtopk(k, nested),
        "jumprelu": lambda k: _part(shape, ae.JumpReLU(m, l0=k), steered(losses.l0)),
        "gated": gated,
        "l1": lambda k: _part(shape, ae.ReLU(m, l0=k), steered(losses.l1), unit=True),
        "april": lambda k: _part(shape, ae.ReLU(m, l0=k), steered(losses.weighted_l1)),
        "annealed": annealed,
        "abstopk": lambda k: _part(shape, ae.AbsTopK(m, room, active=k), revived),  # pyright: ignore[reportCallIssue]
    }


def priced(shape: Shape, price: Any) -> Part:
    """L1 with a price that is given, not steered; a sweep may trace it."""
    return _part(shape, ae.ReLU(shape.latents), ae.sparse(l1=price), unit=True)


def _part(shape: Shape, code: Any, objective: ae.Objective, unit: bool = False) -> Part:
    """A code between a Scale and a dictionary whose atoms are free, or kept at norm 1."""
    dictionary = ae.nets.Dictionary(shape.event, norm=1.0 if unit else 0.1, scale=ae.nets.Scale())
    fall = max(shape.steps // 5, 1)

    def adam(rate: float) -> optax.GradientTransformation:
        return optax.adam(optax.linear_schedule(rate, 0.0, fall, shape.steps - fall))

    # Thresholds are in logarithms: at the others' rate they are hundreds of steps behind.
    rates: dict[Any, Any] = {
        "threshold": adam(3 * shape.learning_rate),
        "rest": adam(shape.learning_rate),
    }
    tx = optax.multi_transform(rates, _labels)
    tx = optax.chain(tx, unit_rows()) if unit else tx
    model = ae.Autoencoder(ae.nets.Scale(), code, dictionary)
    start = (ae.standardised(), ae.tied, quiet) if unit else (ae.standardised(), ae.tied)
    return Part(model, objective, tx, initialise=start)


def quiet(variables: Any, batch: ae.Batch, key: Any) -> Any:
    """Encoders of norm 0.1 beside atoms of norm 1 (Bricken et al. 2023, dictionary_learning).

    As long as their atoms, the latents of an L1 code start as large as the data and end alive but
    tiny: at L0 4 on synth-sae's data they explained 0.23 of the variance, and from here 0.64.
    """
    del batch, key
    params = variables["params"]
    bottleneck = params["bottleneck"]
    encode = {**bottleneck["encode"], "kernel": 0.1 * bottleneck["encode"]["kernel"]}
    params = {**params, "bottleneck": {**bottleneck, "encode": encode}}
    return {**variables, "params": params}


def _labels(params: Any) -> Any:
    """ "threshold" for JumpReLU's parameter, "rest" for all others."""

    def label(path: Any, _: Any) -> str:
        return "threshold" if "log_threshold" in jax.tree_util.keystr(path) else "rest"

    return jax.tree_util.tree_map_with_path(label, params)
