"""What the experiments with synthetic activations share: the store, figures beside its truth."""

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
from aejax.data.data_dir import default_data_dir
from aejax.data.synthetic.store import HOOK, Recipe, synthetic, truth_of
from aejax.dictionaries.folding import raw_atoms
from aejax.evaluation.features import matched, recovery
from aejax.report import Picture, Section
from aejax.report.drawing.plots import scatter
from aejax.report.frontier import dead_section, density_section, frontier_section
from aejax.types import Variables
from experiments.shared.codes import at_each
from experiments.shared.experiment import Experiment, Measured, Members, Page, Splits
from experiments.shared.place import Place
from experiments.shared.training import Part

HELD = 20_000  # tokens of validation and of test, each


def store(recipe: Recipe, tokens: int, place: Place) -> Splits:
    """Train, validation and test of a synthetic store, made once below the folder of data sets.

    Args:
      recipe: its truth and how tokens are drawn.
      tokens: of train; validation and test have HELD more each.
      place: where data sets lie.
    """
    root = default_data_dir() if place.data_dir is None else pathlib.Path(place.data_dir)
    numbers = dataclasses.asdict(recipe)  # type: ignore[call-overload]
    name = hashlib.sha256(json.dumps([numbers, tokens]).encode()).hexdigest()[:12]
    folder = root.expanduser() / "synthetic" / f"{type(recipe).__name__.lower()}-{name}"
    made, _ = synthetic(folder, recipe, tokens + 2 * HELD)
    return made.splits(HOOK, validation=HELD, test=HELD)


def experiment(
    name: str,
    config: type,
    recipe: Callable[[Any], Recipe],
    build: Callable[[Any, tuple[int, ...]], dict[str, Part]],
    title: str,
    text: str,
) -> Experiment:
    """An experiment with swept dictionaries on synthetic activations.

    Args:
      name: of the experiment.
      config: its numbers, with a field `tokens`.
      recipe: of the config: its truth and how tokens are drawn.
      build: of the config and the shape of a token: the parts.
      title: of the page.
      text: about the experiment; its first line stands below the title.
    """
    return Experiment(
        name,
        config,
        data=lambda config, place: store(recipe(config), config.tokens, place),
        build=build,
        figures=lambda config, trained, splits: figures(trained, splits[2]),
        page=lambda config, models, splits: Page(title, text, model_sections(models, splits[2])),
        measured=lambda config, measured: measured_sections(measured),
        rules=ae.dictionary_rules,
    )


def judged(model: Any, variables: Variables, test: Any) -> dict[str, float]:
    """What one dictionary explains of the test tokens, and how much of the truth it has found.

    Args:
      model: a sparse autoencoder.
      variables: of one member.
      test: a split of a synthetic store.
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
    """`judged` of each swept part at each of its settings, "NAME at SETTING" -> f64[seeds] each."""
    return {
        f"{name} at {setting:g}": row
        for name, part in trained.items()
        for setting, row in zip(
            part.part.settings,
            at_each(part, lambda model, variables: judged(model, variables, test)),
            strict=True,
        )
    }


def measured_sections(measured: Measured) -> list[Any]:
    """The frontier of all codes, peers beside, and their dead latents over time."""
    own: dict[str, list[Any]] = {}
    peers: dict[str, list[Any]] = {}
    for name, row in measured.result.items():
        code, at, rest = name.partition(" at ")
        if at:
            (peers if "," in rest else own).setdefault(code, []).append(row)
    text = (
        "What each code explains of test tokens, and how well its atoms match the true features, "
        "against the number of latents that it uses for a token."
    )
    first = frontier_section(own, peers, ("explained_variance", "mcc"), text)
    dead = dead_section(measured.histories, " over settings and seeds")
    return [first, *([dead] if dead else [])]


def model_sections(models: Mapping[str, tuple[Any, Variables]], test: Any) -> list[Any]:
    """How often each code's latents are used, and which features their atoms have found."""
    densities = {
        name: evaluation.sparsity(model, variables, test).density
        for name, (model, variables) in models.items()
    }
    return [density_section(densities), _found(models, test)]


def _found(models: Mapping[str, tuple[Any, Variables]], test: Any) -> Any:
    """The cosine of each feature's matched atom against how common the feature is."""
    truth = truth_of(test)
    common = (truth.features(0, len(test)) > 0).mean(axis=0)
    pictures = []
    for name, (_, variables) in models.items():
        pairs = matched(raw_atoms(variables), truth.dictionary)
        share = np.log10(np.maximum(common[pairs.features], 1e-5))
        pictures.append(
            Picture(
                f"found-{name}",
                f"{name}: each point is a true feature and the atom that is matched with it. "
                "Atoms at 1 point where the feature does.",
                partial(
                    scatter,
                    points=np.stack([share, np.abs(pairs.cosine)], axis=1),
                    axis_names=("log10 of the share of tokens with the feature", "|cosine|"),
                    equal=False,
                ),
            )
        )
    text = (
        "Low lie features that the dictionary has not found, or has absorbed: an atom of a feature "
        "that stands in a hierarchy may hold its parents too."
    )
    return Section("Which features the atoms have found", text, pictures)
