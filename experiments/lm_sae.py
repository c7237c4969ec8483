"""Sparse dictionaries of a language model's residual stream: what the model loses, what they read.

    python -m experiments fetch-lm models
    python -m experiments lm-sae --model models/SmolLM2-135M-Instruct.Q4_1.gguf --manual-dir PATH

It collects activations at a hook (a named place in the model) from train documents, trains TopK,
BatchTopK, JumpReLU and Matryoshka dictionaries with about the same number of active latents on
them, and measures each on test documents of the first corpus: the cross-entropy and the KL
divergence that the model recovers if the values at the hook are replaced by their reconstructions,
sparse probes of parts of speech and topics, and the absorption of first letters. Beside them stand
an untrained dictionary, 32 principal components and the raw neurons.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

import aejax as ae
from aejax import evaluation, recipes
from aejax.errors import UserError
from aejax.evaluation.recovered import explained_by_position
from aejax.report import Section, Table
from aejax.report.frontier import density_section, frontier_section
from aejax.report.side_by_side import side_by_side_section
from experiments.shared import inside, lm
from experiments.shared.codes import job
from experiments.shared.experiment import (
    Experiment,
    Finished,
    Members,
    Models,
    Page,
    Splits,
    first_curves,
)
from experiments.shared.place import Place
from experiments.shared.training import Job, check

POSITIONS = (1, 2, 3, 4, 8, 16, 32, 64, 127)  # the positions in a row whose variance is shown


@dataclasses.dataclass(frozen=True)
class Config(lm.LanguageNumbers):
    """The settings of the experiment; each is a flag of the command."""

    hook: str = "resid_post.15"  # the hook whose activations are explained
    latents: int = 4_608  # latents of each dictionary
    l0: int = 32  # active latents of a token
    kinds: tuple[str, ...] = ("topk", "batchtopk", "jumprelu", "matryoshka")  # the dictionaries


def data(config: Config, place: Place) -> Splits:
    """Opens the activations; the settings are checked first, because collecting takes long."""
    build(config, (1,))
    return lm.data(config, place, config.hook)


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns name of a code -> its job."""
    check(config, "latents", "l0")
    if config.l0 > config.latents:
        raise UserError(f"--l0 is {config.l0}: give at most {config.latents}, that of --latents")
    m, k, steps = config.latents, config.l0, config.steps
    made = {
        "topk": lambda: recipes.topk(event, m, k, steps=steps),
        "batchtopk": lambda: recipes.batchtopk(event, m, k, steps=steps),
        "jumprelu": lambda: recipes.jumprelu(event, m, l0=float(k), steps=steps),
        "matryoshka": lambda: recipes.matryoshka(event, m, k, steps=steps),
    }
    unknown = [kind for kind in config.kinds if kind not in made]
    if unknown or not config.kinds:
        raise UserError(
            f"--kinds {' '.join(unknown) or 'is empty'}: choose one or more of {', '.join(made)}"
        )
    return {kind: job(made[kind]()) for kind in config.kinds}


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Measures all dictionaries and what they are compared with."""
    hooks = inside.Hooks(config.hook, config.hook)
    return inside.judged(config, inside.readings(trained, splits[0], hooks), splits, hooks)


def page(config: Config, models: Models, splits: Splits) -> Page:
    """Builds the report page."""
    densities = {
        name: evaluation.sparsity(model, variables, splits[2]).density
        for name, (model, variables) in models.items()
    }
    sections = [by_position(config, models, splits), density_section(densities)]
    return Page(f"Dictionaries of {config.hook}", __doc__ or "", sections)


def by_position(config: Config, models: Models, splits: Splits) -> Section:
    """Builds the table of the variance that each dictionary explains at positions in a row."""
    test = lm.rows_of(splits[2])
    x = test.values(config.hook)
    position = np.broadcast_to(np.arange(x.shape[1]), x.shape[:2])[test.kept]
    shown = [p for p in POSITIONS if p < x.shape[1]]
    rows = []
    for name, (model, variables) in models.items():
        reading = inside.of_dictionary(ae.fold(model, variables), config.hook)
        assert reading.rebuild is not None
        values = x[test.kept]
        found = explained_by_position(values, reading.rebuild(values), position)
        rows.append((name, *(f"{found[p]:.3f}" for p in shown)))
    return Section(
        "Explained variance by position",
        "The variance of the activations at one position in the row of tokens that each "
        "dictionary explains, without attention sinks.",
        table=Table(("", *(f"position {p}" for p in shown)), rows),
    )


def findings(config: Config, finished: Finished) -> list[Any]:
    """Plots explained variance and recovered cross-entropy against the number of active latents."""
    names = ("explained_variance", "ce_recovered")
    rows = {
        name: [row]
        for name, row in finished.result.items()
        if isinstance(row, dict) and all(figure in row for figure in names)
    }
    text = (
        "The variance of test activations that each row explains, and the share of the language "
        "model's cross-entropy that it recovers against zero ablation."
    )
    return [frontier_section(rows, {}, names, text)]


def curves(histories: Mapping[str, Any]) -> Section:
    """Plots the learning curves of all dictionaries side by side."""
    section = side_by_side_section(histories, " over seeds")
    return first_curves(histories) if section is None else section


EXPERIMENT = Experiment(
    name="lm-sae",
    config=Config,
    data=data,
    build=build,
    figures=figures,
    page=page,
    findings=findings,
    curves=curves,
    rules=ae.dictionary_rules,
)
