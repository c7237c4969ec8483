"""Writes the report of a finished run from the files in its folder."""

from __future__ import annotations

import dataclasses
import importlib.util
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

import aejax as ae
from aejax import report
from aejax.errors import UserError
from aejax.report import Section
from aejax.runs import metrics
from aejax.runs.folder import read_environment, read_result
from experiments.shared.experiment import (
    Experiment,
    Finished,
    Models,
    Splits,
    first_curves,
    named,
    recorded,
    recorded_data,
)
from experiments.shared.place import say


def report_if_possible(
    experiment: Experiment, config: Any, out: pathlib.Path, splits: Splits
) -> None:
    """Writes the report of a finished run if matplotlib is installed, else says how to get it.

    Of several processes, only the first writes it.
    """
    if jax.process_index() != 0:
        return
    if importlib.util.find_spec("matplotlib") is None:
        say(
            "no report was written, because matplotlib is not installed: install it, then run "
            f"`python -m experiments report {out}`"
        )
        return
    say(f"report: {page(experiment, config, out, splits)}")


def write_page(
    folder: pathlib.Path,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    own: bool = False,
) -> pathlib.Path:
    """Writes the report of a finished run again, and returns its path.

    The run may be somebody else's. If its data cannot be read, the page says so and shows the rest.

    Args:
      folder: the run's folder.
      data_dir, manual_dir, own: as in `recorded_data`.
    """
    experiment = named(folder)
    config = recorded(folder, experiment)
    try:
        splits = recorded_data(folder, data_dir, manual_dir, own)
    except UserError as error:
        return page_without_data(config, folder, str(error))
    return page(experiment, config, folder, splits)


def page(experiment: Experiment, config: Any, folder: pathlib.Path, splits: Splits) -> pathlib.Path:
    """Writes figures/*.png and report.html from the files of a run; returns the page's path."""
    models: Models = {}
    for i, label in enumerate(experiment.build(config, splits[0].event)):
        opened = ae.load(folder if i == 0 else folder / label, seed=0)
        models[label] = (opened.model, opened.variables)
    content = experiment.page(config, models, splits)
    curves = _curves(folder, list(models), experiment.curves)
    result = read_result(folder)
    finished = Finished(result, curves.histories)
    findings = experiment.findings(config, finished) if curves.histories else []
    text = content.text.partition("\n")[0]
    sections = [*findings, *curves.sections, *content.sections]
    return _written(folder, content.title, text, sections, result, config)


def page_without_data(config: Any, folder: pathlib.Path, said: str) -> pathlib.Path:
    """Writes the page of a run whose data cannot be read: its curves, result and settings."""
    labels = [path.parent.name for path in sorted(folder.glob(f"*/{metrics.NAME}"))]
    curves = _curves(folder, [folder.resolve().name, *labels], first_curves)
    missing = Section("Not shown", f"Pictures and examples are not shown, since {said}.")
    title = folder.resolve().name
    return _written(folder, title, "", [missing, *curves.sections], read_result(folder), config)


class _Curves(NamedTuple):
    """The sections that are made of metrics.jsonl, and the learning curves of each job."""

    sections: list[Section]
    histories: dict[str, Any]


def _curves(
    folder: pathlib.Path, labels: Sequence[str], show: Callable[[Mapping[str, Any]], Section]
) -> _Curves:
    """Reads the metrics of the jobs, of which the first has the folder itself."""
    try:
        places = [folder, *(folder / label for label in labels[1:])]
        logged = {label: metrics.read(at) for label, at in zip(labels, places, strict=True)}
        histories = {label: report.history(at) for label, at in zip(labels, places, strict=True)}
    except UserError as error:
        return _Curves([Section("Learning curves", f"They cannot be shown: {error}.")], {})
    for said in (report.verdict(logged), report.steering_verdict(logged)):
        if said:
            say(said)
    checks = (report.steering_section(logged), report.collapse_section(logged))
    sections = [section for section in checks if section is not None]
    return _Curves([*sections, show(histories)], histories)


def _written(
    folder: pathlib.Path,
    title: str,
    text: str,
    sections: list[Section],
    result: Mapping[str, Any],
    config: Any,
) -> pathlib.Path:
    """Writes the page; the environment is left out, and the page says why, if it cannot be read."""
    try:
        environment = read_environment(folder)
    except UserError as error:
        environment = {"not shown": str(error)}
    return report.write(
        folder,
        title,
        sections,
        summary=text,
        results={name: row for name, row in result.items() if name != "steps"},
        config=dataclasses.asdict(config),
        environment=environment,
    )
