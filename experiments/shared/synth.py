"""Data, scores and pages of the experiments on synthetic activations with known true features."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

import aejax as ae
from aejax import evaluation
from aejax.data.activations.index import FILE
from aejax.data.data_dir import check_prepared, default_data_dir
from aejax.data.synthetic.store import HOOK, Recipe, synthetic, truth_of
from aejax.dictionaries.folding import raw_atoms
from aejax.evaluation.features import matched, recovery
from aejax.report import Picture, Section
from aejax.report.drawing.plots import scatter
from aejax.report.frontier import frequency_section, frontier_section
from aejax.report.side_by_side import side_by_side_section
from aejax.types import Variables
from experiments.shared.codes import at_each
from experiments.shared.experiment import (
    Experiment,
    Finished,
    Members,
    Page,
    Splits,
    first_curves,
)
from experiments.shared.place import Place
from experiments.shared.training import Job

HELD = 20_000  # number of tokens in the validation split, and in the test split


def store(recipe: Recipe, tokens: int, place: Place) -> Splits:
    """Returns the splits of a synthetic activation store, which is written if it does not exist.

    Args:
      recipe: the true features, and how tokens are drawn from them.
      tokens: the number of train tokens; validation and test have HELD tokens each.
      place: its `data_dir` is the folder that contains the store.
    """
    root = default_data_dir() if place.data_dir is None else pathlib.Path(place.data_dir)
    numbers = dataclasses.asdict(recipe)  # type: ignore[call-overload]
    name = hashlib.sha256(json.dumps([numbers, tokens]).encode()).hexdigest()[:12]
    folder = root.expanduser() / "synthetic" / f"{type(recipe).__name__.lower()}-{name}"
    if not (folder / FILE).is_file():
        check_prepared(f"synthetic/{folder.name}", root, place.prepared_only)
    made, _ = synthetic(folder, recipe, tokens + 2 * HELD)
    return made.splits(HOOK, validation=HELD, test=HELD)


def experiment(
    name: str,
    config: type,
    recipe: Callable[[Any], Recipe],
    build: Callable[[Any, tuple[int, ...]], dict[str, Job]],
    title: str,
    text: str,
) -> Experiment:
    """Returns an experiment that trains sweeps of dictionaries on synthetic activations.

    Args:
      name: the name of the experiment.
      config: the dataclass of its settings, with a field `tokens`.
      recipe: config -> the true features, and how tokens are drawn from them.
      build: (config, shape of a token) -> the jobs.
      title: the title of the report page.
      text: a description of the experiment; only its first line is shown, below the title.
    """
    return Experiment(
        name,
        config,
        data=lambda config, place: store(recipe(config), config.tokens, place),
        build=build,
        figures=lambda config, trained, splits: figures(trained, splits[2]),
        page=lambda config, models, splits: Page(title, text, model_sections(models, splits[2])),
        findings=lambda config, finished: findings(finished),
        curves=curves,
        rules=ae.dictionary_rules,
    )


def judged(model: Any, variables: Variables, test: Any) -> dict[str, float]:
    """Returns scores of one dictionary: explained variance, and how well it found the features.

    Args:
      model: a sparse autoencoder.
      variables: the variables of one trained model.
      test: the test split of a synthetic store.
    """
    truth = truth_of(test)
    found = evaluation.sparsity(model, variables, test)
    features = recovery(model, variables, test, truth.dictionary, truth.features)
    return {
        "l0": found.l0,
        "explained_variance": found.explained_variance,
        "mcc": features.mcc,
        "mmcs": features.mmcs,
        "f1": features.f1,
        "dead": found.dead,
    }


def figures(trained: Members, test: Any) -> dict[str, dict[str, np.ndarray]]:
    """Computes the scores of `judged` for all jobs and settings.

    Returns:
      "JOB at SETTING" -> name of a score -> f64[seeds].
    """
    return {
        f"{name} at {setting:g}": row
        for name, done in trained.items()
        for setting, row in zip(
            done.job.settings,
            at_each(done, lambda model, variables: judged(model, variables, test)),
            strict=True,
        )
    }


def findings(finished: Finished) -> list[Any]:
    """Builds the section that plots explained variance and MCC of each code against L0.

    Entries of result.json with the name "CODE at SETTING, LIBRARY" are results of another library.
    """
    own: dict[str, list[Any]] = {}
    peers: dict[str, list[Any]] = {}
    for name, row in finished.result.items():
        code, at, rest = name.partition(" at ")
        if at:
            (peers if "," in rest else own).setdefault(code, []).append(row)
    text = (
        "The variance of test tokens that each code explains, and how well its atoms match the "
        "true features, against the number of latents that are active for a token."
    )
    return [frontier_section(own, peers, ("explained_variance", "mcc"), text)]


def curves(histories: Mapping[str, Any]) -> Section:
    """Builds the section on the learning curves of all codes side by side."""
    section = side_by_side_section(histories, " over settings and seeds")
    return first_curves(histories) if section is None else section


def model_sections(models: Mapping[str, tuple[Any, Variables]], test: Any) -> list[Any]:
    """Returns two sections: how often latents are active, and which features atoms have found."""
    frequencies = {
        name: evaluation.sparsity(model, variables, test).frequency
        for name, (model, variables) in models.items()
    }
    return [frequency_section(frequencies), _found(models, test)]


def _found(models: Mapping[str, tuple[Any, Variables]], test: Any) -> Any:
    """Builds the section that plots the cosine of a feature and its atom against its frequency."""
    truth = truth_of(test)
    common = (truth.features(0, len(test)) > 0).mean(axis=0)
    pictures = []
    for name, (_, variables) in models.items():
        pairs = matched(raw_atoms(variables), truth.dictionary)
        share = np.log10(np.maximum(common[pairs.features], 1e-5))
        pictures.append(
            Picture(
                f"found-{name}",
                f"{name}: each point is a true feature and the atom that is matched with it. At a "
                "cosine of 1 they have the same direction.",
                partial(
                    scatter,
                    points=np.stack([share, np.abs(pairs.cosine)], axis=1),
                    axis_names=("log10 of the share of tokens with the feature", "|cosine|"),
                    equal=False,
                ),
            )
        )
    text = (
        "Features with a low cosine were not found, or were absorbed: the atom of a feature in a "
        "hierarchy may contain its parents too."
    )
    return Section("Which features the atoms have found", text, pictures)
