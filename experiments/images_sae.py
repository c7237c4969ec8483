"""All sparse autoencoders on images, compared with a dense one of equal size and with PCA.

    python -m experiments images-sae --dataset mnist

Images of 784 pixels are encoded by 1,024 latents, of which 16, 32 or 64 are active. The sparse
codes of `shared/codes.py` are compared at the same L0. The textbook objective with L1, which has
means instead of sums, has a fixed weight of the L1 norm, and therefore another L0. To see whether a
unit can be interpreted, the labels of the 20 examples that activate it most are compared. With
`--seeds 3` the experiment takes up to 160 minutes on two CPU cores that do other work as well. With
only `--k 32` and one seed, it takes 8 minutes on one CPU core. Expect explained variances of 0.85
to 0.87 with 32 active latents, 0.82 for the annealed code, 0.80 for April and 0.77 for L1.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax

import aejax as ae
from aejax import evaluation
from aejax.report import Section, sparse_sections
from aejax.report.frontier import frequency_section, frontier_section
from aejax.report.side_by_side import side_by_side_section
from aejax.report.sparse import atoms_section
from aejax.types import Variables
from experiments.shared.codes import Shape, at_each, codes, swept
from experiments.shared.experiment import (
    Experiment,
    Finished,
    Members,
    Models,
    Page,
    Splits,
    first_curves,
)
from experiments.shared.images import image_data, pictures
from experiments.shared.numbers import Count
from experiments.shared.training import Job, Numbers
from experiments.shared.variational import mean_square_error, named

JUDGED = 10_000  # number of train examples among which the top examples of units are found


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    steps: Count = 1_500  # optimiser steps
    batch: Count = 128  # examples in a batch
    dataset: str = "mnist"  # name of a data set, or path of a folder of images
    latents: Count = 1_024  # number of latents of each dictionary
    k: tuple[int, ...] = (32, 16, 64)  # numbers of active latents for which each code is trained
    l1_mean: float = 0.3  # weight of mean |z|, added to the mean squared error
    code: Count = 64  # number of units of the plain autoencoder's code, and of components of PCA
    # Adam's learning rate; None: the recipes' default, and 1e-3 for the two other models.
    learning_rate: float | None = None


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns name -> `Job` (a model and its training).

    The models are the sparse codes, L1 with means, and a plain autoencoder of equal size.
    """
    pixels, latents = math.prod(event), config.latents
    if not config.k or not 1 <= min(config.k) <= max(config.k) <= latents:
        raise ae.UserError(
            f"--k is {config.k}: give numbers from 1 to {latents}, the number of latents"
        )
    if config.code > pixels:
        raise ae.UserError(f"--code is {config.code}: give at most {pixels}, the number of pixels")
    shape = Shape(event, latents, max(config.k), config.steps, config.learning_rate)
    sparse = {name: swept(make, config.k) for name, make in codes(shape).items()}
    tx = optax.adam(1e-3 if config.learning_rate is None else config.learning_rate)
    means: ae.Objective = {
        "error": (1.0 / pixels, ae.losses.squared_error),
        "l1": (config.l1_mean / latents, ae.losses.l1),
    }
    watched = ae.watch(l0=ae.losses.l0, dead=ae.losses.dead())
    textbook = ae.Autoencoder(
        ae.nets.Identity(), ae.ReLU(latents), ae.nets.Dictionary(event, norm=1.0)
    )
    # The plain autoencoder has 2 * width * (pixels + code) weights. The width is chosen so that
    # this is the number of weights of a dictionary and its encoder, 2 * pixels * latents.
    width = round(pixels * latents / (pixels + config.code))
    plain = ae.Autoencoder(
        ae.nets.MLP((width,)), ae.Point(config.code), ae.nets.MLP((width,), shape=event)
    )
    error: ae.Objective = {"error": (1.0, ae.losses.squared_error)}
    return {
        **sparse,
        "l1-mean": Job(textbook, ae.merge(means, watched), tx, initialise=ae.tied),
        "plain": Job(plain, error, tx),
    }


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Computes test results of each job and of PCA.

    They include how well the labels of the examples that activate a unit most agree.
    """
    train, _, test = splits
    judged = train.take(JUDGED)

    def measure(model: Any, variables: Variables) -> dict[str, Any]:
        plain = isinstance(model.bottleneck, ae.Point)
        found = (_plain if plain else _sparse)(model, variables, test)
        units = evaluation.latents(model, variables, judged)
        return {**found, **_units(evaluation.centred(units) if plain else units, judged.labels)}

    result = {}
    for label, done in trained.items():
        if done.job.sweep is not None:
            rows = at_each(done, measure)
            result |= {f"{label} at {k}": row for k, row in zip(config.k, rows, strict=True)}
            continue
        one = functools.partial(measure, done.job.model)
        result[label] = evaluation.over_seeds(one, done.variables, done.seeds)
    return {**result, "pca": _pca(config.code, train, test)}


def _sparse(model: Any, variables: Variables, test: Any) -> dict[str, Any]:
    found = evaluation.sparsity(model, variables, test)
    return {
        "mean_square_error": mean_square_error(model, variables, test),
        "explained_variance": found.explained_variance,
        "l0": found.l0,
        "dead": found.dead,
    }


def _plain(model: Any, variables: Variables, test: Any) -> dict[str, Any]:
    error = mean_square_error(model, variables, test)
    total = np.var(_pixels(test), axis=0).mean()
    return {
        "mean_square_error": error,
        "explained_variance": 1.0 - error / total,
        "l0": float(model.bottleneck.latents),
    }


def _units(activations: np.ndarray, labels: np.ndarray | None) -> dict[str, Any]:
    """Scores how well the labels of the examples that activate a unit most agree.

    A unit with activations of both signs counts as two units, one for each sign. The result is {}
    if there are no labels.
    """
    if labels is None:
        return {}
    both = activations.min() < 0
    found = evaluation.units(evaluation.signed(activations) if both else activations, labels)
    return {
        "label_entropy": found.mean_entropy,
        "units_that_agree": found.agree,
        "units_judged": found.judged,
    }


def _pca(components: int, train: Any, test: Any) -> dict[str, Any]:
    found = evaluation.principal(_pixels(train), components)
    x, judged = _pixels(test), train.take(JUDGED)
    error = np.mean(np.square(x - evaluation.rebuild(found, evaluation.project(found, x))))
    scores = evaluation.project(found, _pixels(judged))
    return {
        "mean_square_error": error,
        "explained_variance": 1.0 - error / np.var(x, axis=0).mean(),
        "l0": float(components),
        **_units(scores, judged.labels),
    }


def _pixels(split: Any) -> np.ndarray:
    """Returns the pixels of all images of a split, f32[N, D]."""
    return pictures(split).reshape(len(split), -1)


def page(config: Config, models: Models, splits: Splits) -> Page:
    """Builds the report page: atoms and firing frequencies of all codes, and details of "topk"."""
    plain = models["plain"]
    sparse = {name: pair for name, pair in models.items() if name != "plain"}
    frequencies = {
        name: evaluation.sparsity(model, variables, splits[2]).frequency
        for name, (model, variables) in sparse.items()
    }
    atoms = atoms_section({n: v for n, (_, v) in sparse.items()}, frequencies, splits[2])
    sections = sparse_sections(*models["topk"], splits, jax.random.key(0), plain=plain)
    return Page(
        f"Sparse autoencoders of {named(splits)}",
        __doc__ or "",
        [*atoms, *sections, frequency_section(frequencies)],
    )


def findings(config: Config, finished: Finished) -> list[Any]:
    """Builds the section that plots results of all codes, the autoencoder and PCA against L0."""
    rows: dict[str, list[Any]] = {}
    for name, row in finished.result.items():
        if isinstance(row, dict) and "explained_variance" in row:
            rows.setdefault(name.partition(" at ")[0], []).append(row)
    shown = [n for n in ("explained_variance", "label_entropy") if n in rows["plain"][0]]
    text = (
        "The variance of test images that each code explains, against the number of latents that "
        "are active for an image; and how far the labels of a unit's top images differ."
    )
    return [frontier_section(rows, {}, shown, text)]


def curves(histories: Mapping[str, Any]) -> Section:
    """Builds the section on the learning curves of all sparse codes, in shared plots."""
    sparse = {name: history for name, history in histories.items() if name != "plain"}
    section = side_by_side_section(sparse, " over members")
    return first_curves(histories) if section is None else section


EXPERIMENT = Experiment(
    name="images-sae",
    config=Config,
    data=image_data(binarise="none"),
    build=build,
    figures=figures,
    page=page,
    findings=findings,
    curves=curves,
    rules=ae.dictionary_rules,
)
