"""The sparse codes that experiments compare, each after its paper, all of them at the same L0.

Codes that do not fix the number of active latents reach it through a price that is adjusted during
training (`losses.priced`). This differs from the papers in three more ways: L1 does not resample
dead latents; JumpReLU's initial threshold, its bandwidth and the learning rate of its thresholds
suit runs of thousands of steps rather than hundreds of thousands; and the model centres the data
and scales it to mean square 1.
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
from experiments.shared.training import Job, Trained

Event = tuple[int, ...]


class Shape(NamedTuple):
    """The numbers that all codes of an experiment share."""

    event: Event  # the shape of one example
    latents: int  # the number of latents, m
    room: int  # slots of an example: the largest number of active latents of the sweep
    steps: int  # training steps
    learning_rate: float  # learning rate of Adam, which falls to 0 over the last fifth of the steps
    revival: float = 1 / 32  # weight of the auxiliary loss AuxK, which revives dead latents


def codes(shape: Shape) -> dict[str, Callable[[Any], Job]]:
    """Returns name of a code -> a function from the number of active latents to its job.

    That number may be a tracer, so that a sweep trains several numbers in one program.
    """
    m, room = shape.latents, shape.room
    stage = max(shape.steps // 8, 1)

    def wanted(k: Any) -> dict[str, Any]:
        return {"l0": k, "descent": max(shape.steps // 2, 1)}

    def gated(k: Any) -> Job:
        price = {"price": (1.0, losses.priced(losses.gate_l1()))}
        gate: ae.Objective = {"gate": (1.0, losses.gate_error()), **price}
        return _job(shape, ae.Gated(m, **wanted(k)), ae.merge(ae.sparse(), gate), unit=True)

    def jumprelu(k: Any) -> Job:
        # With atoms of norm 1, pre-activations start at their final scale, and a bandwidth of half
        # of it contains some pre-activations of each batch. With norm 0.1, thresholds had to grow
        # twentyfold: they arrived late, overshot and did not return.
        code = ae.JumpReLU(m, threshold=1.0, bandwidth=0.5, **wanted(k))
        return _job(shape, code, steered, norm=1.0)

    def by_norm(k: Any) -> Job:
        # SAELens' form of TopK ranks latents by the norm of what they add to the reconstruction
        # rather than by activation, and gives AuxK the weight 1. On the data of synth-sae it
        # explains less variance and finds more of the features.
        code = ae.TopK(m, room, active=k, score_by_norm=True)  # pyright: ignore[reportCallIssue]
        return _job(shape, code, ae.sparse(revival=1.0))

    def batchtopk(k: Any, objective: ae.Objective) -> Job:
        return _job(shape, ae.BatchTopK(m, k, room), objective)  # pyright: ignore[reportCallIssue]

    def annealed(k: Any) -> Job:
        code = ae.AnnealedReLU(m, begin=2 * stage, every=stage, **wanted(k))
        return _job(shape, code, steered, unit=True)

    revived = ae.sparse(revival=shape.revival)
    steered = ae.sparse(steered=losses.penalty)  # the penalty that each class of code defines
    nested = recipes.matryoshka(losses.fractions(m), revival=shape.revival)
    return {
        "topk": lambda k: _job(shape, ae.TopK(m, room, active=k), revived),  # pyright: ignore[reportCallIssue]
        "topk-by-norm": by_norm,
        "batchtopk": lambda k: batchtopk(k, revived),
        "matryoshka": lambda k: batchtopk(k, nested),
        "jumprelu": jumprelu,
        "gated": gated,
        "l1": lambda k: _job(shape, ae.ReLU(m, **wanted(k)), steered, unit=True),
        "april": lambda k: _job(
            shape, ae.ReLU(m, **wanted(k)), ae.sparse(steered=losses.weighted_l1)
        ),
        "annealed": annealed,
        "abstopk": lambda k: _job(shape, ae.AbsTopK(m, room, active=k), revived),  # pyright: ignore[reportCallIssue]
    }


def swept(make: Callable[[Any], Job], numbers: Sequence[float]) -> Job:
    """Returns the job that trains a code at several numbers of active latents side by side."""
    return make(numbers[0])._replace(sweep=make, settings=tuple(numbers))


def at_each(
    trained: Trained, measure: Callable[[Any, Variables], Mapping[str, Any]]
) -> list[dict[str, np.ndarray]]:
    """Evaluates a trained sweep: a mapping for each setting, with values f64[seeds].

    Args:
      trained: a job with a sweep, after training.
      measure: (model, variables of one member) -> name -> number.
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
    """Returns the job of an L1 code with a fixed price, which may be a tracer."""
    return _job(shape, ae.ReLU(shape.latents), ae.sparse(l1=price), unit=True)


def _job(
    shape: Shape, code: Any, objective: ae.Objective, unit: bool = False, norm: float = 0.1
) -> Job:
    """Makes the job of a sparse autoencoder: input scaling, the code and a dictionary.

    Args:
      shape: the numbers that all codes share.
      code: the bottleneck.
      objective: the loss.
      unit: whether the optimiser keeps atoms at norm 1.
      norm: the norm of the atoms at the start, where they are not kept at norm 1.
    """
    norm = 1.0 if unit else norm
    dictionary = ae.nets.Dictionary(shape.event, norm=norm, scale=ae.nets.Scale())
    fall = max(shape.steps // 5, 1)

    def adam(rate: float) -> optax.GradientTransformation:
        return optax.adam(optax.linear_schedule(rate, 0.0, fall, shape.steps - fall))

    # Thresholds are logarithms: at the common learning rate they lag by hundreds of steps.
    rates: dict[Any, Any] = {
        "threshold": adam(3 * shape.learning_rate),
        "rest": adam(shape.learning_rate),
    }
    tx = optax.multi_transform(rates, _labels)
    if code.l0 is not None:
        # As in Conerly et al. 2024: while the price moves, the gradient norm varies manyfold.
        tx = optax.chain(optax.clip_by_global_norm(1.0), tx)
    tx = optax.chain(tx, unit_rows()) if unit else tx
    model = ae.Autoencoder(ae.nets.Scale(), code, dictionary)
    start = (ae.standardised(), ae.tied, quiet) if unit else (ae.standardised(), ae.tied)
    return Job(model, objective, tx, initialise=start)


def quiet(variables: Any, batch: ae.Batch, key: Any) -> Any:
    """Scales the encoder to norm 0.1, with atoms of norm 1 (as the library dictionary_learning).

    With an encoder of norm 1, the latents of an L1 code start as large as the data, and many end up
    active but tiny.
    """
    return put(variables, KERNEL, 0.1 * get(variables, KERNEL))


def _labels(params: Any) -> Any:
    """Labels parameters for the two optimisers: JumpReLU's is "threshold", all others "rest"."""

    def label(path: Any, _: Any) -> str:
        return "threshold" if "log_threshold" in jax.tree_util.keystr(path) else "rest"

    return jax.tree_util.tree_map_with_path(label, params)
