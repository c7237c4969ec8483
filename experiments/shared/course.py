"""Runs an experiment: trains its models one after another, evaluates them and writes the report."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import aejax as ae
from aejax import evaluation
from aejax.errors import UserError
from aejax.files import json_fields
from aejax.runs.folder import ENVIRONMENT, read_environment
from aejax.runs.leaves import params_sha256
from experiments.shared.experiment import Experiment, Members, Splits
from experiments.shared.numbers import check
from experiments.shared.pages import report_if_possible
from experiments.shared.place import Place, say
from experiments.shared.training import Job, Trained, completed, summary, table, train


def drive(experiment: Experiment, config: Any, place: Place) -> dict[str, Any]:
    """Trains and tests all models of an experiment, and writes result.json and the report.

    A `Job` is a model and its training. The run folder of the first job is the experiment's folder,
    and those of the other jobs are subfolders of it. An interrupted experiment continues from its
    checkpoints. If the experiment has finished before, its result is only printed.

    Args:
      experiment: the experiment.
      config: its settings, an instance of `experiment.config`.
      place: folders, devices and floating-point precision of the run.

    Returns:
      The content of result.json.

    Raises:
      UserError: if a setting is out of range, if the data has changed since the run began, or if a
        folder cannot be used.
    """
    mesh = place.settle()
    out = place.folder(experiment.name)
    check(config)  # raises an error before data are prepared, which can take long
    splits = experiment.data(config, place)
    built = experiment.build(config, splits[0].event)
    jobs = {label: completed(job, splits[0]) for label, job in built.items()}
    if config.batch > len(splits[0]):
        raise UserError(
            f"--batch is {config.batch}, but {splits[0].name} has only {len(splits[0])} examples: "
            "give a smaller batch"
        )
    facts = {"data": [split.provenance() for split in splits], "mesh": place.mesh}
    trained: dict[str, Trained] = {}
    with contextlib.ExitStack() as stack:
        runs: list[ae.Run] = []
        for label, job in jobs.items():
            own = config if job.steps is None else dataclasses.replace(config, steps=job.steps)
            run = ae.Run(
                out if not runs else out / label,
                own,
                experiment=experiment.name,
                **described(job, config),
                objective=job.objective,
                best="validation_loss",
                log_every=config.log_every,
                profile=place.profile and not runs,
            )
            runs.append(stack.enter_context(run))
            if runs[0].result is not None:
                if not (out / "report.html").exists():  # the run was stopped before the report
                    report_if_possible(experiment, config, out, splits)
                say(f"{out} is finished:\n{show(runs[0].result)}")
                return runs[0].result
            if not runs[1:]:
                _same_data(out, facts["data"])
            run.environment(**facts)
            say(f"{experiment.name}: {label}, seeds {config.seeds}, steps {own.steps:,}")
            trained[label] = train(run, job, own, splits, mesh, experiment.rules)
        values = experiment.figures(config, trained, splits)
        _store(experiment, config, trained, splits, out)
        result = _finish(runs[0], trained, values)
        report_if_possible(experiment, config, out, splits)
    say(f"{out}:\n{show(result)}")
    return result


def described(job: Job, config: Any) -> dict[str, Any]:
    """Returns the arguments model and settings of `ae.Run` for a job, which may be a sweep."""
    if job.sweep is None:
        return {"model": job.model}
    sweep = job.sweep
    settings = np.repeat(np.asarray(job.settings), config.seeds)
    return {"model": lambda setting: sweep(setting).model, "settings": settings}


def _finish(run: ae.Run, trained: Members, values: Mapping[str, Any]) -> dict[str, Any]:
    """Writes result.json, and returns its content.

    Args:
      run: the run of the first job.
      trained: the trained jobs.
      values: name of a result -> its values f[S], or name of a model -> such a mapping.

    Returns:
      Each result's mean and standard deviation over seeds, and its values, by name.
    """
    own = next(iter(trained.values()))
    result: dict[str, Any] = {}
    for name, value in values.items():
        result |= {name: summary(value)} if isinstance(value, Mapping) else summary({name: value})
    if np.isfinite(own.steps_per_second):  # NaN if one call ran all steps
        result |= summary({"steps_per_second": own.steps_per_second})
    hashes = {label: params_sha256(done.state.params) for label, done in trained.items()}
    return run.finish({**result, "parts_sha256": hashes}, own.state)


def _store(
    experiment: Experiment, config: Any, trained: Members, splits: Splits, out: pathlib.Path
) -> None:
    """Writes the further files of a run, if the experiment has any."""
    if experiment.store is None or jax.process_index() != 0:
        return
    models = {
        name: (done.job.model, next(evaluation.each(done.variables, done.seeds)))
        for name, done in trained.items()
    }
    experiment.store(config, models, splits, out)


def _same_data(out: pathlib.Path, data: list[dict[str, Any]]) -> None:
    """Checks that the data of a continued run has not changed.

    Raises:
      UserError: if a split has another sha256 than environment.json records.
    """
    before = read_environment(out).get("data", data) if (out / ENVIRONMENT).exists() else data
    known = json_fields.list_of(json_fields.record_of({"sha256": json_fields.sha256}))
    if not known(before) or len(before) != len(data):
        raise UserError(
            f"'data' in {out / ENVIRONMENT} is {json_fields.shown(before)}, not a list with the "
            f"sha256 of {len(data)} splits: restore the file or choose another --out"
        )
    for was, now in zip(before, data, strict=True):
        if was["sha256"] != now["sha256"]:
            raise UserError(
                f"{now['name']} has changed since the run {out} began (sha256 "
                f"{now['sha256'][:12]} instead of {was['sha256'][:12]}): restore the data or "
                "choose another --out"
            )


def show(result: Mapping[str, Any]) -> str:
    """Returns a result as aligned lines of text, with a block of lines for each further model."""
    flat = {name: row for name, row in result.items() if isinstance(row, dict) and "mean" in row}
    lines = [table(flat)] if flat else []
    for name, row in result.items():
        if isinstance(row, dict) and all(isinstance(cell, dict) for cell in row.values()):
            lines += [f" {name}", table(row)]
    if "params_sha256" in result:
        lines.append(f"  params_sha256 {result['params_sha256']}")
    return "\n".join(lines)
