"""Writes the report of a finished run from the files in its folder."""

from __future__ import annotations

import dataclasses
import importlib.util
import pathlib
from typing import Any

import jax

import aejax as ae
from aejax import report
from aejax.runs import metrics
from aejax.runs.folder import read_environment, read_result
from experiments.shared.experiment import Experiment, Finished, Splits
from experiments.shared.place import Place, say


def report_if_possible(
    experiment: Experiment, config: Any, out: pathlib.Path, splits: Splits
) -> None:
    """Writes the report if matplotlib is installed; of several processes, only the first writes."""
    if jax.process_index() != 0:
        return
    if importlib.util.find_spec("matplotlib") is None:
        say(
            "no report was written, because matplotlib is not installed: install it, then run "
            f"`python -m experiments report {out}`"
        )
        return
    say(f"report: {page(experiment, config, out, splits)}")


def write_page(experiment: Experiment, folder: pathlib.Path, place: Place) -> pathlib.Path:
    """Writes the report of a finished run again, and returns its path."""
    config = experiment.config(**ae.load(folder, parts=()).config.__dict__)
    return page(experiment, config, folder, experiment.data(config, place))


def page(experiment: Experiment, config: Any, folder: pathlib.Path, splits: Splits) -> pathlib.Path:
    """Writes figures/*.png and report.html from the files of a run; returns the page's path."""
    models, logged, histories = {}, {}, {}
    for i, label in enumerate(experiment.build(config, splits[0].event)):
        place = folder if i == 0 else folder / label
        opened = ae.load(place, seed=0)
        models[label] = (opened.model, opened.variables)
        logged[label] = metrics.read(place)
        histories[label] = report.history(place)
    content = experiment.page(config, models, splits)
    curves = experiment.curves(histories)
    checks = (report.steering_section(logged), report.collapse_section(logged))
    first = [*(section for section in checks if section is not None), curves]
    for said in (report.verdict(logged), report.steering_verdict(logged)):
        if said:
            say(said)
    result = read_result(folder)
    findings = experiment.findings(config, Finished(result, histories))
    return report.write(
        folder,
        content.title,
        [*findings, *first, *content.sections],
        summary=content.text.partition("\n")[0],
        results={name: row for name, row in result.items() if name != "steps"},
        config=dataclasses.asdict(config),
        environment=read_environment(folder),
    )
