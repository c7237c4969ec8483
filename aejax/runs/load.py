"""Loads the model, variables and config from a run's folder, for notebooks and commands."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aejax.errors import UserError
from aejax.files import as_json, reading
from aejax.runs import checkpoint, manifest
from aejax.runs.config import MISSING, differences
from aejax.runs.folder import CHECKPOINTS, CONFIG, read_config
from aejax.runs.leaves import nest
from aejax.runs.model_json import from_json, to_json
from aejax.types import Variables
from aejax.variables import FURTHER, unpacked

PARAMS, MEMORY = checkpoint.PARAMS, "memory/"
# `averaged` stores (optimiser state, averaged parameters) as the state's `opt`; evaluation uses the
# averaged parameters.
AVERAGE = "opt/1/"


class Opened(NamedTuple):
    """The model, variables and config of a run: `model.apply(variables, ...)` runs the model."""

    model: Any
    # Leaves have a leading axis S if S models were trained together and none was chosen.
    variables: Variables
    config: Any  # a frozen dataclass with the fields of the recorded config


def load(
    folder: str | os.PathLike,
    *,
    seed: int | None = None,
    setting: Any = None,
    step: int | None = None,
    best: bool | str = False,
    parts: Sequence[str] | None = None,
    model: Any = None,
) -> Opened:
    """Loads the model, variables and config of a run; no code from the folder is executed.

    Args:
      folder: the run's folder.
      seed: the index, from 0, of one of the S models that `aejax.seeds` or `aejax.swept` trained
        together; None: all of them are loaded, with a leading axis S.
      setting: for a run of `aejax.swept`, one of its settings, such as 5.0, or {"l0": 5.0} if its
        settings have names; if there is only one name, it may be left out. `seed` is then an index
        among the models that were trained with this setting, and may be left out if there is one.
        None: `seed` is an index among all models; without a seed either, the variables are those of
        all models, and the model is that of the first setting.
      step: the step of the checkpoint to load; None: the newest undamaged one.
      best: True: the checkpoint with the smallest validation result is loaded, which
        `Run(..., best=name)` keeps. If checkpoints have several validation results, give the name
        of one.
      parts: the names of the model's modules to load, for example ("decoder", "prior") to draw
        samples; None: all. The files of other modules may be missing.
      model: the run's model; it is required if the `Run` was not given the model, or if the model
        has modules from outside aejax.

    Returns:
      (model, variables, config). If the run averaged its weights (`aejax.averaged`), the variables
      hold the averages.

    Raises:
      UserError: if the folder is not that of a run, has no such seed or setting, or has only
        damaged checkpoints, if the given model is not the one that was trained, or if the model
        cannot be rebuilt from its description in config.json.
    """
    folder = pathlib.Path(folder)
    record = read_config(folder)
    seed, described = _chosen(folder, record, seed, setting)
    if model is None:
        if described is None:
            raise UserError(
                f"{folder / CONFIG} does not describe the model: pass the model as "
                "load(folder, model=...), or, when training, as Run(..., model=...)"
            )
        model = from_json(described)
    elif described is not None:
        _check_model(folder, described, model)
    if best:
        step = _best_step(folder / CHECKPOINTS, best, step)
    found = checkpoint.newest(folder / CHECKPOINTS, lambda path: _wanted(path, parts), step)
    if found is None:
        raise UserError(f"{folder} has no checkpoint yet: train until the run has written one")
    members = _members(record)
    if seed is not None:
        if members is None:
            raise UserError(f"{folder} holds one model, not several seeds: leave out seed={seed}")
        if not 0 <= seed < members:
            raise UserError(
                f"{folder} has no seed {seed}: choose one of its {members} seeds, from 0 to "
                f"{members - 1}"
            )
    with reading(folder / CHECKPOINTS / str(found.step), "load a checkpoint of this run"):
        leaves = {path: jnp.asarray(leaf.value()) for path, leaf in found.leaves.items()}
        if seed is not None:
            leaves = {path: leaf[seed] for path, leaf in leaves.items()}
        variables = _variables(leaves)
    with reading(folder / CONFIG, "restore it"):
        return Opened(model, variables, _config(record))


def load_config(folder: str | os.PathLike) -> Any:
    """Returns the config of a run, as `load` does, without reading a checkpoint.

    Raises:
      UserError: if the folder is not that of a run.
    """
    folder = pathlib.Path(folder)
    record = read_config(folder)
    with reading(folder / CONFIG, "restore it"):
        return _config(record)


def _chosen(
    folder: pathlib.Path, record: dict[str, Any], seed: int | None, setting: Any
) -> tuple[int | None, Any]:
    """Returns the index of the chosen model among all S models, and its description in JSON."""
    entries = list((record.get("sweep") or {}).values())
    if setting is None:
        own = [entry.get("model") for entry in entries if seed in entry["members"]]
        return seed, own[0] if own else record.get("model")
    named = [entry for entry in entries if _equal(entry.get("setting"), as_json(setting))]
    if not named:
        known = ", ".join(_said(entry.get("setting")) for entry in entries)
        raise UserError(
            f"{folder} has no models trained with the setting {_said(setting)}: "
            + (f"choose one of {known}" if known else "it is not a sweep, so leave out setting")
        )
    members = named[0]["members"]
    if seed is None and len(members) == 1:
        seed = 0
    if seed is None or not 0 <= seed < len(members):
        raise UserError(
            f"{folder} has {len(members)} models trained with the setting {setting}: choose a seed "
            f"from 0 to {len(members) - 1}"
        )
    return members[seed], named[0].get("model")


def _said(setting: Any) -> str:
    """Returns a setting of a sweep in words, such as "beta=4.0"."""
    if isinstance(setting, dict):
        return ", ".join(f"{name}={value}" for name, value in setting.items())
    return str(setting)


def _equal(a: Any, b: Any) -> bool:
    """Returns whether two settings are equal, up to the rounding of numbers to float32."""
    if isinstance(a, dict) and len(a) == 1 and not isinstance(b, dict):
        return _equal(next(iter(a.values())), b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[name], b[name]) for name in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-6)
    return a == b


def _best_step(folder: pathlib.Path, best: bool | str, step: int | None) -> int:
    """Returns the step of the checkpoint in which a validation result is smallest.

    Args:
      folder: the run's `checkpoints` folder.
      best: the name of the validation result; True: the only one that the checkpoints have.
      step: the argument `step` of `load`, which must be None.
    """
    if step is not None:
        raise UserError(f"load was given step={step} and best={best!r}: give only one of them")
    names = manifest.figures(folder) if best is True else {str(best)}
    if len(names) != 1:
        raise UserError(
            f"the checkpoints of {folder} have {'several' if names else 'no'} validation results"
            + (f" ({', '.join(sorted(names))}): give best the name of one" if names else "")
            + ("" if names else ": pass them to run.save(state, figures), or leave out best")
        )
    name = names.pop()
    found = manifest.best_figure(folder, name)
    if found is None:
        raise UserError(
            f"no checkpoint of {folder} has the validation result {name!r}: choose another one"
        )
    return found[0]


def _check_model(folder: pathlib.Path, recorded: Any, model: Any) -> None:
    """Checks that the model given to `load` is the one that was trained.

    Args:
      folder: the run's folder, for the error message.
      recorded: the description of the trained model in config.json.
      model: the given model.

    Raises:
      UserError: if a field that both have has different values.
    """
    for field, before, after in differences(recorded, as_json(to_json(model)), "model"):
        if MISSING not in (before, after):
            raise UserError(
                f"{folder} was trained with another model: {field} was {before!r} and is "
                f"{after!r}; give the model that was trained, or leave out model if load can "
                "rebuild it"
            )


def _wanted(path: str, parts: Sequence[str] | None) -> bool:
    for prefix in (PARAMS, MEMORY, AVERAGE):
        if path.startswith(prefix):
            names = path.removeprefix(prefix).split("/")
            part = names[1] if names[0].startswith(FURTHER) else names[0]
            return parts is None or part in parts
    return False


def _variables(leaves: dict[str, jax.Array]) -> dict[str, Any]:
    params = _under(leaves, PARAMS)
    average = _under(leaves, AVERAGE)
    if params.keys() == average.keys():
        params = average
    return unpacked(nest(params), nest(_under(leaves, MEMORY)))


def _under(leaves: dict[str, jax.Array], prefix: str) -> dict[str, jax.Array]:
    return {p.removeprefix(prefix): leaf for p, leaf in leaves.items() if p.startswith(prefix)}


def _members(record: dict[str, Any]) -> int | None:
    """Returns the number of seeds, read from the shape of the run's key: Key[] or Key[S]."""
    shape = (record.get("tree") or {}).get("key", [None])[1:]
    return shape[0] if shape else None


def _config(record: dict[str, Any]) -> Any:
    fields = {name: _tuples(value) for name, value in record["config"].items()}
    cls = dataclasses.make_dataclass(record["class"], list(fields), frozen=True)
    return cls(**fields)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
