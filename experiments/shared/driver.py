"""The course of an experiment: data, parts trained one after another, figures, report, table."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import pathlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

import aejax as ae
import experiments
from aejax.data import Split
from aejax.errors import UserError
from aejax.files import read_json, writing
from aejax.runs import metrics
from aejax.runs.leaves import params_sha256
from aejax.types import Variables
from experiments.shared.place import Place
from experiments.shared.training import Part, Trained, check, summary, table, train

Splits = tuple[Split, Split, Split]
Members = Mapping[str, Trained]


class Page(NamedTuple):
    """What a report says of a run."""

    title: str
    text: str  # its first line stands below the title
    sections: list[Any]  # aejax.report.Section


class Measured(NamedTuple):
    """What a finished experiment has measured, for those sections that need no model."""

    result: Mapping[str, Any]  # result.json
    histories: Mapping[str, Any]  # part -> its aejax.report.history


class Experiment(NamedTuple):
    """An experiment is a record of pure functions of its numbers."""

    name: str
    config: type  # a frozen dataclass of numbers
    data: Callable[[Any, Place], Splits]  # train, validation and test
    build: Callable[[Any, tuple[int, ...]], dict[str, Part]]  # of the shape of one example
    figures: Callable[[Any, Members, Splits], Mapping[str, Any]]  # name -> f[S], or name -> such
    page: Callable[[Any, dict[str, tuple[Any, Variables]], Splits], Page]  # of part -> its model
    measured: Callable[[Any, Measured], list[Any]] = lambda config, measured: []  # first sections
    presets: Mapping[str, Any] = {}  # name -> config: what --preset starts from
    rules: Any = ()  # shardings of parameters over the mesh (see aejax.training.compiled)


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
                    _report(experiment, config, out, splits)
                say(f"{out} is finished:\n{show(runs[0].result)}")
                return runs[0].result
            if not runs[1:]:
                _same_data(out, facts["data"])
            run.environment(**facts)
            say(f"{experiment.name}: {label}, seeds {config.seeds}, steps {own.steps:,}")
            trained[label] = train(run, part, own, splits, mesh, experiment.rules)
        result = _finish(runs[0], trained, experiment.figures(config, trained, splits))
        _report(experiment, config, out, splits)
    say(f"{out}:\n{show(result)}")
    return result


def write_page(experiment: Experiment, folder: pathlib.Path, place: Place) -> pathlib.Path:
    """Writes the page of a finished run anew, from what its folder holds."""
    config = experiment.config(**ae.load(folder, parts=()).config.__dict__)
    return page(experiment, config, folder, experiment.data(config, place))


def page(experiment: Experiment, config: Any, folder: pathlib.Path, splits: Splits) -> pathlib.Path:
    """figures/*.png and report.html of a run, from its checkpoints, metrics and result."""
    from aejax import report as reports

    models, logged, histories = {}, {}, {}
    for i, label in enumerate(experiment.build(config, splits[0].event)):
        place = folder if i == 0 else folder / label
        opened = ae.load(place, seed=0)
        models[label] = (opened.model, opened.variables)
        logged[label] = metrics.read(place)
        histories[label] = reports.history(place)
    content = experiment.page(config, models, splits)
    curves = reports.curves_section(reports.history(folder))
    used = reports.collapse_section(logged)
    first = [curves] if used is None else [used, curves]
    if said := reports.verdict(logged):
        say(said)
    result = read_json(folder / "result.json")
    measured = experiment.measured(config, Measured(result, histories))
    return reports.write(
        folder,
        content.title,
        [*measured, *first, *content.sections],
        summary=content.text.partition("\n")[0],
        results={name: row for name, row in result.items() if name != "steps"},
        config=dataclasses.asdict(config),
        environment=read_json(folder / "environment.json"),
    )


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


def _report(experiment: Experiment, config: Any, out: pathlib.Path, splits: Splits) -> None:
    if jax.process_index() != 0:
        return
    if importlib.util.find_spec("matplotlib") is None:
        say(
            "no report, as matplotlib is not installed; where it is, "
            f"`python -m experiments report {out}` writes it"
        )
        return
    say(f"report: {page(experiment, config, out, splits)}")


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


def say(text: str) -> None:
    """A line for whoever watches, from one process of several."""
    if jax.process_index() == 0:
        print(text, flush=True)


def prepared(out: str, **counts: int) -> pathlib.Path:
    """The folder of a benchmark, made where it is not there.

    Args:
      out: its path.
      **counts: the benchmark's numbers by their flags.

    Raises:
      UserError: for a number below 1, or a folder that cannot be made.
    """
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"--{name} is {value}: give 1 or more")
    folder = pathlib.Path(out).expanduser()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def named(folder: pathlib.Path) -> Experiment:
    """The experiment that a run's folder is of.

    Raises:
      UserError: the folder is no run, or of a script or an experiment that there is not.
    """
    name = read_json(folder / "config.json").get("experiment")
    if name is None:
        raise UserError(
            f"{folder} was written by a script, which no experiment can report on: open it with "
            f"ae.load({str(folder)!r})"
        )
    module = str(name).replace("-", "_")
    known = [entry.name for entry in pkgutil.iter_modules(experiments.__path__)]
    found = importlib.import_module(f"experiments.{module}") if module in known else None
    if not hasattr(found, "EXPERIMENT"):
        raise UserError(f"{folder} is a run of {name!r}, which is no experiment of this version")
    return found.EXPERIMENT  # type: ignore[union-attr]
