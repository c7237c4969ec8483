"""What an experiment is: a record of its numbers, data, parts, figures and page."""

from __future__ import annotations

import importlib
import pathlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import experiments
from aejax.data import Split
from aejax.errors import UserError
from aejax.files import read_json
from aejax.report import Section
from aejax.types import Variables
from experiments.shared.place import Place
from experiments.shared.training import Part, Trained

Splits = tuple[Split, Split, Split]
Members = Mapping[str, Trained]
Models = dict[str, tuple[Any, Variables]]  # part -> its model, and the variables of its first seed


class Page(NamedTuple):
    """What a report says of a run."""

    title: str
    text: str  # its first line stands below the title
    sections: list[Section]


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
    page: Callable[[Any, Models, Splits], Page]
    measured: Callable[[Any, Measured], list[Section]] = (
        lambda config, measured: []
    )  # first sections
    presets: Mapping[str, Any] = {}  # name -> config: what --preset starts from
    rules: Any = ()  # shardings of parameters over the mesh (see aejax.training.compiled)


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
