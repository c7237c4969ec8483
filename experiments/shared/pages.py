"""The page of a finished run, written from what its folder holds."""

from __future__ import annotations

import dataclasses
import importlib.util
import pathlib
from typing import Any

import jax

import aejax as ae
from aejax import report
from aejax.files import read_json
from aejax.runs import metrics
from experiments.shared.experiment import Experiment, Measured, Splits
from experiments.shared.place import Place, say


def report_if_possible(
    experiment: Experiment, config: Any, out: pathlib.Path, splits: Splits
) -> None:
    """Writes the page from one process of several, and only where matplotlib is installed."""
    if jax.process_index() != 0:
        return
    if importlib.util.find_spec("matplotlib") is None:
        say(
            "no report, as matplotlib is not installed; where it is, "
            f"`python -m experiments report {out}` writes it"
        )
        return
    say(f"report: {page(experiment, config, out, splits)}")


def write_page(experiment: Experiment, folder: pathlib.Path, place: Place) -> pathlib.Path:
    """Writes the page of a finished run anew, from what its folder holds."""
    config = experiment.config(**ae.load(folder, parts=()).config.__dict__)
    return page(experiment, config, folder, experiment.data(config, place))


def page(experiment: Experiment, config: Any, folder: pathlib.Path, splits: Splits) -> pathlib.Path:
    """figures/*.png and report.html of a run, from its checkpoints, metrics and result."""
    models, logged, histories = {}, {}, {}
    for i, label in enumerate(experiment.build(config, splits[0].event)):
        place = folder if i == 0 else folder / label
        opened = ae.load(place, seed=0)
        models[label] = (opened.model, opened.variables)
        logged[label] = metrics.read(place)
        histories[label] = report.history(place)
    content = experiment.page(config, models, splits)
    curves = report.curves_section(report.history(folder))
    used = report.collapse_section(logged)
    first = [curves] if used is None else [used, curves]
    if said := report.verdict(logged):
        say(said)
    result = read_json(folder / "result.json")
    measured = experiment.measured(config, Measured(result, histories))
    return report.write(
        folder,
        content.title,
        [*measured, *first, *content.sections],
        summary=content.text.partition("\n")[0],
        results={name: row for name, row in result.items() if name != "steps"},
        config=dataclasses.asdict(config),
        environment=read_json(folder / "environment.json"),
    )
