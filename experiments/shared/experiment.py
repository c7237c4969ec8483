"""The record that describes an experiment: settings, data, models, test results and page."""

from __future__ import annotations

import importlib
import pathlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import experiments
from aejax.data import Split
from aejax.errors import UserError
from aejax.files import reason
from aejax.report import Section, curves_section
from aejax.runs.folder import read_config
from aejax.runs.load import load_config
from aejax.types import Variables
from experiments.shared.numbers import check
from experiments.shared.place import Place
from experiments.shared.training import Job, Trained

Splits = tuple[Split, Split, Split]
Members = Mapping[str, Trained]  # name of a job -> its trained models, one for each seed
# Name of a job -> its model and the variables of its first seed.
Models = dict[str, tuple[Any, Variables]]


class Page(NamedTuple):
    """The content of a run's report page."""

    title: str
    text: str  # a description; only its first line is shown, below the title
    sections: list[Section]


class Finished(NamedTuple):
    """The results of a finished experiment, for those sections of its page that need no model."""

    result: Mapping[str, Any]  # the content of result.json
    histories: Mapping[str, Any]  # name of a job -> its learning curves (aejax.report.history)


def first_curves(histories: Mapping[str, Any]) -> Section:
    """Builds the section on the learning curves of the first job.

    Args:
      histories: name of a job -> its learning curves.
    """
    return curves_section(next(iter(histories.values())))


class Experiment(NamedTuple):
    """An experiment: the class of its settings, and functions for its data, models and page.

    A `Job` is a model and its training; it trains one copy of the model for each seed.
    """

    name: str
    config: type  # a frozen dataclass of settings
    data: Callable[[Any, Place], Splits]  # (config, place) -> train, validation and test splits
    build: Callable[[Any, tuple[int, ...]], dict[str, Job]]  # (config, shape of an example) -> jobs
    # (config, trained jobs, splits) -> the test results: name of a result -> f[S], a value for each
    # seed, or name of a model -> such a mapping
    figures: Callable[[Any, Members, Splits], Mapping[str, Any]]
    page: Callable[[Any, Models, Splits], Page]  # (config, models, splits) -> page
    # (config, results) -> the first sections of the report page
    findings: Callable[[Any, Finished], list[Section]] = lambda config, finished: []
    presets: Mapping[str, Any] = {}  # name -> the config that --preset NAME selects
    # (name of a job -> its learning curves) -> the section on them; the default shows the first job
    curves: Callable[[Mapping[str, Any]], Section] = first_curves
    # config -> how a decoder's output is played: the `Mel` of its spectrograms or a rate in hertz;
    # None: it is not a sound
    sound: Callable[[Any], Any] = lambda config: None
    # (config, models of the first seed, splits, folder of the run) -> None: writes further files,
    # such as what tools read besides the checkpoints; None: there are none
    store: Callable[[Any, Models, Splits, pathlib.Path], None] | None = None
    rules: Any = ()  # shardings of parameters over the mesh (see aejax.training.compiled)


def recorded(folder: pathlib.Path, experiment: Experiment) -> Any:
    """Returns the settings that a run's config.json records, as an instance of its config class.

    Raises:
      UserError: if a setting is missing, unknown, or out of its range.
    """
    fields = load_config(folder).__dict__
    try:
        config = experiment.config(**fields)
    except TypeError as error:
        raise UserError(
            f"{folder} does not have the settings of {experiment.name} ({reason(error)}): use the "
            "version of aejax that wrote it"
        ) from error
    check(config)
    return config


def recorded_data(
    folder: pathlib.Path,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    own: bool = False,
) -> Splits:
    """Returns the data of a run that has ended, whose files may come from somebody else.

    Args:
      folder: the run's folder.
      data_dir: the folder of prepared data sets; None: that of tensorflow-datasets.
      manual_dir: a folder with the raw files of the data set, or None.
      own: whether to trust the run: to follow the paths that its config.json names, and to prepare
        or download data that are missing.

    Raises:
      UserError: if the data are not in data_dir, or config.json names a path, and `own` is False.
    """
    experiment = named(folder)
    place = Place(data_dir=data_dir, manual_dir=manual_dir, prepared_only=not own)
    return experiment.data(recorded(folder, experiment), place)


def named(folder: pathlib.Path) -> Experiment:
    """Returns the experiment that wrote a run's folder.

    Raises:
      UserError: if the folder is not that of a run, or if a script or an unknown experiment wrote
        it.
    """
    name = read_config(folder).get("experiment")
    if name is None:
        raise UserError(
            f"{folder} was written by a script, not by an experiment, so this command cannot use "
            f"it: open it with ae.load({str(folder)!r})"
        )
    found = by_name(str(name))
    if found is None:
        raise UserError(
            f"{folder} is a run of {name!r}, an experiment that this version does not have: use "
            "the version that wrote it"
        )
    return found


def by_name(name: str) -> Experiment | None:
    """Returns the experiment of that name, such as "digits-vae", or None if there is none."""
    module = name.replace("-", "_")
    if module not in [entry.name for entry in pkgutil.iter_modules(experiments.__path__)]:
        return None
    return getattr(importlib.import_module(f"experiments.{module}"), "EXPERIMENT", None)
