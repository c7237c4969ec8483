"""Every sparse code of images beside a plain autoencoder of the same cost and PCA.

    python -m experiments images-sae --dataset mnist

784 pixels become 1,024 latents, 32 of them active: the codes of `codes.py` at one L0, and the
textbook form of L1, with means in place of sums, at a price. What does one unit stand for? Each is
judged by the labels of the 20 examples that it answers to most. 8 minutes on one CPU core; expect
most codes to explain 0.86 to 0.89 of the variance at 32 latents, L1 and April 0.57.
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
from aejax.report import sparse_sections
from aejax.report.frontier import dead_section, density_section, frontier_section
from aejax.report.sparse import atoms_section
from aejax.types import Variables
from experiments.shared.codes import Shape, at_each, codes, swept
from experiments.shared.experiment import Experiment, Measured, Members, Models, Page, Splits
from experiments.shared.images import image_data, pictures
from experiments.shared.training import Numbers, Part, check
from experiments.shared.variational import mean_square_error, named

JUDGED = 10_000  # train examples that the units are judged by


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The experiment's numbers."""

    steps: int = 1_500
    batch: int = 128
    dataset: str = "mnist"  # a name, or the path of a folder of pictures
    latents: int = 1_024  # units of the dictionary
    k: tuple[int, ...] = (32,)  # active latents of each code, one or several numbers
    l1_mean: float = 0.3  # weight of the mean of |z| beside the mean squared error
    code: int = 64  # units of the plain autoencoder's code
    learning_rate: float = 1e-3  # of Adam


def build(config: Config, event: tuple[int, ...]) -> dict[str, Part]:
    """The sparse codes, L1 with means, and a plain autoencoder with as many parameters."""
    check(config, "latents", "code")
    pixels, latents = math.prod(event), config.latents
    if not config.k or not 1 <= min(config.k) <= max(config.k) <= latents:
        raise ae.UserError(f"--k is {config.k}: give numbers from 1 to the {latents} latents")
    if config.code > pixels:
        raise ae.UserError(f"--code is {config.code}, more than the {pixels} pixels: give fewer")
    shape = Shape(event, latents, max(config.k), config.steps, config.learning_rate)
    sparse = {name: swept(make, config.k) for name, make in codes(shape).items()}
    tx = optax.adam(config.learning_rate)
    means: ae.Objective = {
        "error": (1.0 / pixels, ae.losses.squared_error),
        "l1": (config.l1_mean / latents, ae.losses.l1),
    }
    watched = ae.watch(l0=ae.losses.l0, dead=ae.losses.dead())
    textbook = ae.Autoencoder(
        ae.nets.Identity(), ae.ReLU(latents), ae.nets.Dictionary(event, norm=1.0)
    )
    # 2 * width * (pixels + code) weights, as the dictionary and its encoder have 2 * pixels * m.
    width = round(pixels * latents / (pixels + config.code))
    plain = ae.Autoencoder(
        ae.nets.MLP((width,)), ae.Point(config.code), ae.nets.MLP((width,), shape=event)
    )
    error: ae.Objective = {"error": (1.0, ae.losses.squared_error)}
    return {
        **sparse,
        "l1-mean": Part(textbook, ae.merge(means, watched), tx, initialise=ae.tied),
        "plain": Part(plain, error, tx),
    }


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Test figures of each part, and how its units agree; PCA with the plain code's size."""
    train, _, test = splits
    judged = train.take(JUDGED)

    def measure(model: Any, variables: Variables) -> dict[str, Any]:
        plain = isinstance(model.bottleneck, ae.Point)
        found = (_plain if plain else _sparse)(model, variables, test)
        units = evaluation.latents(model, variables, judged)
        return {**found, **_units(units, judged.labels)}

    result = {}
    for label, part in trained.items():
        if part.part.sweep is not None:
            rows = at_each(part, measure)
            result |= {f"{label} at {k}": row for k, row in zip(config.k, rows, strict=True)}
            continue
        one = functools.partial(measure, part.part.model)
        result[label] = evaluation.over_seeds(one, part.variables, part.seeds)
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
    """How far the top examples of a unit agree; one that answers both ways counts as two."""
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
    """f32[N, D]."""
    return pictures(split).reshape(len(split), -1)


def page(config: Config, models: Models, splits: Splits) -> Page:
    """All codes' latents, and the page of the first; the plain one's reconstructions beside."""
    plain = models["plain"]
    sparse = {name: pair for name, pair in models.items() if name != "plain"}
    densities = {
        name: evaluation.sparsity(model, variables, splits[2]).density
        for name, (model, variables) in sparse.items()
    }
    atoms = atoms_section({n: v for n, (_, v) in sparse.items()}, densities, splits[2])
    sections = sparse_sections(*models["topk"], splits, jax.random.key(0), plain=plain)
    return Page(
        f"Sparse autoencoders of {named(splits)}",
        __doc__ or "",
        [*atoms, *sections, density_section(densities)],
    )


def measured(config: Config, measured: Measured) -> list[Any]:
    """The frontier of all codes, plain autoencoder and PCA beside, and dead latents over time."""
    rows: dict[str, list[Any]] = {}
    for name, row in measured.result.items():
        if isinstance(row, dict) and "explained_variance" in row:
            rows.setdefault(name.partition(" at ")[0], []).append(row)
    shown = [n for n in ("explained_variance", "label_entropy") if n in rows["plain"][0]]
    text = (
        "What each code explains of test images against the numbers that it uses for an image, and "
        "how far the images that a unit answers to most differ in their labels."
    )
    dead = dead_section(measured.histories, " over members")
    return [frontier_section(rows, {}, shown, text), *([dead] if dead else [])]


EXPERIMENT = Experiment(
    name="images-sae",
    config=Config,
    data=image_data(binarise="none"),
    build=build,
    figures=figures,
    page=page,
    measured=measured,
    rules=ae.dictionary_rules,
)
