"""Sparse autoencoders of images beside a plain autoencoder of the same cost and PCA.

    python -m experiments images-sae --dataset mnist

784 pixels become 1,024 latents: TopK, an L1 penalty on atoms of norm 1, and the textbook form of
L1 with means in place of sums. What does one unit stand for? Each is judged by the labels of the 20
examples that it answers to most. About 6 minutes on 2 shared CPU cores; expected on MNIST's test
split: TopK explains 0.910 of the variance with 32 active latents (label entropy 0.83 nats), L1
0.917 with 77 (0.92), the plain autoencoder 0.922 with 64 numbers (1.13), PCA 0.866 (1.44).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax

import aejax as ae
from aejax import evaluation
from aejax.transforms import unit_rows
from aejax.types import Variables
from experiments.driver import Experiment, Members, Page, Splits
from experiments.place import Place
from experiments.training import Numbers, Part, check
from experiments.variational import named

JUDGED = 10_000  # train examples that the units are judged by


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The experiment's numbers."""

    steps: int = 5_000
    batch: int = 256
    dataset: str = "mnist"  # a name, or the path of a folder of pictures
    latents: int = 1_024  # units of the dictionary
    k: int = 32  # active latents of TopK
    l1: float = 0.3  # weight of the L1 norm beside the squared error
    l1_mean: float = 0.3  # weight of the mean of |z| beside the mean squared error
    code: int = 64  # units of the plain autoencoder's code
    learning_rate: float = 1e-3  # of Adam


def data(config: Config, place: Place) -> Splits:
    """Train, validation and test, as grey values."""
    return ae.data.images(
        config.dataset, binarise="none", data_dir=place.data_dir, manual_dir=place.manual_dir
    )


def build(config: Config, event: tuple[int, ...]) -> dict[str, Part]:
    """TopK, L1 with sums, L1 with means, and a plain autoencoder with as many parameters."""
    check(config, "latents", "k", "code")
    pixels, latents = math.prod(event), config.latents
    if config.k > latents:
        raise ae.UserError(f"--k is {config.k}, more than the {latents} latents: give fewer")
    if config.code > pixels:
        raise ae.UserError(f"--code is {config.code}, more than the {pixels} pixels: give fewer")
    tx = optax.adam(config.learning_rate)
    unit = optax.chain(tx, unit_rows())

    def sae(bottleneck: Any) -> ae.Autoencoder:
        return ae.Autoencoder(ae.nets.Identity(), bottleneck, ae.nets.Dictionary(event, norm=1.0))

    means: ae.Objective = {
        "error": (1.0 / pixels, ae.losses.squared_error),
        "l1": (config.l1_mean / latents, ae.losses.l1),
    }
    watched = ae.watch(l0=ae.losses.l0, dead=ae.losses.dead())
    # 2 * width * (pixels + code) weights, as the dictionary and its encoder have 2 * pixels * m.
    width = round(pixels * latents / (pixels + config.code))
    plain = ae.Autoencoder(
        ae.nets.MLP((width,)), ae.Point(config.code), ae.nets.MLP((width,), shape=event)
    )
    error: ae.Objective = {"error": (1.0, ae.losses.squared_error)}
    tied = ae.tied
    return {
        "topk": Part(sae(ae.TopK(latents, config.k)), ae.sparse(), unit, initialise=tied),  # pyright: ignore[reportCallIssue]
        "l1": Part(sae(ae.ReLU(latents)), ae.sparse(l1=config.l1), unit, initialise=tied),
        "l1-mean": Part(sae(ae.ReLU(latents)), ae.merge(means, watched), tx, initialise=tied),
        "plain": Part(plain, error, tx),
    }


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Test figures of each part, and how its units agree; PCA with the plain code's size."""
    train, _, test = splits
    judged = train.take(JUDGED)
    result = {}
    for label, part in trained.items():
        model, sparse = part.part.model, label != "plain"
        measure = _sparse if sparse else _plain

        def one(variables: Variables, model: Any = model, measure: Any = measure) -> dict[str, Any]:
            codes = evaluation.latents(model, variables, judged)
            agreement = _units(codes, judged.labels, measure is _sparse)
            return {**measure(model, variables, test), **agreement}

        result[label] = evaluation.over_seeds(one, part.variables, part.seeds)
    return {**result, "pca": _pca(config.code, train, test)}


def _sparse(model: Any, variables: Variables, test: Any) -> dict[str, Any]:
    found = evaluation.sparsity(model, variables, test)
    error = evaluation.means(evaluation.reconstruction(model, variables, test))["mean_square"]
    return {
        "mean_square_error": error,
        "explained_variance": found.explained_variance,
        "l0": found.l0,
        "dead": found.dead,
    }


def _plain(model: Any, variables: Variables, test: Any) -> dict[str, Any]:
    error = evaluation.means(evaluation.reconstruction(model, variables, test))["mean_square"]
    total = np.var(_pixels(test), axis=0).mean()
    return {
        "mean_square_error": error,
        "explained_variance": 1.0 - error / total,
        "l0": float(model.bottleneck.latents),
    }


def _units(activations: np.ndarray, labels: np.ndarray | None, sparse: bool) -> dict[str, Any]:
    """How far the top examples of a unit agree; a dense unit answers both ways, so it is two."""
    if labels is None:
        return {}
    found = evaluation.units(activations if sparse else evaluation.signed(activations), labels)
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
        **_units(scores, judged.labels, sparse=False),
    }


def _pixels(split: Any) -> np.ndarray:
    """f32[N, D]."""
    batches = split.batches(5_000)
    return np.concatenate([np.asarray(b.target).reshape(len(b.target), -1) for b in batches])


def page(config: Config, models: dict[str, tuple[Any, Variables]], splits: Splits) -> Page:
    """The page of the sparse autoencoder, the plain one's reconstructions beside."""
    from aejax.report import sparse_sections

    sections = sparse_sections(*models["topk"], splits, jax.random.key(0), plain=models["plain"])
    return Page(f"Sparse autoencoders of {named(splits)}", __doc__ or "", sections)


EXPERIMENT = Experiment(
    name="images-sae",
    config=Config,
    data=data,
    build=build,
    figures=figures,
    page=page,
    rules=ae.dictionary_rules,
)
