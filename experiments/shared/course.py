"""The course of a run: parts are trained one after another, measured once, and reported."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

import aejax as ae
from aejax.errors import UserError
from aejax.files import read_json
from aejax.runs.leaves import params_sha256
from experiments.shared.experiment import Experiment, Members
from experiments.shared.pages import report_if_possible
from experiments.shared.place import Place, say
from experiments.shared.training import Trained, check, summary, table, train


def drive(experiment: Experiment, config: Any, place: Place) -> dict[str, Any]:
    """Trains all parts, computes the test figures once, writes result.json and the report.

    The first part is the experiment's own: its run is the folder itself, those of the others are
    folders inside it. Started again, each goes on where it was; a finished experiment prints its
    result and trains nothing.

    Returns:
      What stands in result.json.
    """
    mesh = place.settle()
    out = place.folder(experiment.name)
    check(config)  # before data are made
    splits = experiment.data(config, place)
    parts = experiment.build(config, splits[0].event)
    if config.batch > len(splits[0]):
        raise UserError(
            f"--batch is {config.batch}, larger than {splits[0].name}, which has {len(splits[0])} "
            "examples: give a smaller one"
        )
    facts = {"data": [split.provenance() for split in splits], "mesh": place.mesh}
    trained: dict[str, Trained] = {}
    with contextlib.ExitStack() as stack:
        runs: list[ae.Run] = []
        for label, part in parts.items():
            own = config if part.steps is None else dataclasses.replace(config, steps=part.steps)
            run = ae.Run(
                out if not runs else out / label,
                own,
                experiment=experiment.name,
                model=part.model,
                objective=part.objective,
                best="validation_loss",
                log_every=config.log_every,
                profile=place.profile and not runs,
            )
            runs.append(stack.enter_context(run))
            if runs[0].result is not None:
                if not (out / "report.html").exists():  # it was stopped before the page
                    report_if_possible(experiment, config, out, splits)
                say(f"{out} is finished:\n{show(runs[0].result)}")
                return runs[0].result
            if not runs[1:]:
                _same_data(out, facts["data"])
            run.environment(**facts)
            say(f"{experiment.name}: {label}, seeds {config.seeds}, steps {own.steps:,}")
            trained[label] = train(run, part, own, splits, mesh, experiment.rules)
        result = _finish(runs[0], trained, experiment.figures(config, trained, splits))
        report_if_possible(experiment, config, out, splits)
    say(f"{out}:\n{show(result)}")
    return result


def _finish(run: ae.Run, trained: Members, values: Mapping[str, Any]) -> dict[str, Any]:
    """Writes result.json: for each figure its mean, standard deviation and values per seed."""
    own = next(iter(trained.values()))
    result: dict[str, Any] = {}
    for name, value in values.items():
        result |= {name: summary(value)} if isinstance(value, Mapping) else summary({name: value})
    if np.isfinite(own.steps_per_second):  # of one call there is no time between calls
        result |= summary({"steps_per_second": own.steps_per_second})
    hashes = {label: params_sha256(part.state.params) for label, part in trained.items()}
    return run.finish({**result, "parts_sha256": hashes}, own.state)


def _same_data(out: pathlib.Path, data: list[dict[str, Any]]) -> None:
    """Refuses to go on with a run on other data than it began with."""
    path = out / "environment.json"
    before = read_json(path).get("data", data) if path.exists() else data
    for was, now in zip(before, data, strict=True):
        if was["sha256"] != now["sha256"]:
            raise UserError(
                f"{now['name']} is not what {out} was begun with (sha256 {now['sha256'][:12]}, "
                f"then {was['sha256'][:12]}): bring the data back or choose another --out"
            )


def show(result: Mapping[str, Any]) -> str:
    """A result as aligned lines; nested figures come under the name of their part."""
    flat = {name: row for name, row in result.items() if isinstance(row, dict) and "mean" in row}
    lines = [table(flat)] if flat else []
    for name, row in result.items():
        if isinstance(row, dict) and all(isinstance(cell, dict) for cell in row.values()):
            lines += [f" {name}", table(row)]
    if "params_sha256" in result:
        lines.append(f"  params_sha256 {result['params_sha256']}")
    return "\n".join(lines)
