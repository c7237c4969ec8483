"""Loads the model, variables and config from a run's folder, for notebooks and commands."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aejax.errors import UserError
from aejax.files import read_json
from aejax.runs import checkpoint
from aejax.runs.folder import CHECKPOINTS, CONFIG
from aejax.runs.leaves import nest
from aejax.runs.model_json import from_json
from aejax.types import Variables

PARAMS, MEMORY = "params/", "memory/"
# `averaged` stores (inner, average) as the state's `opt`, and evaluation uses the average.
AVERAGE = "opt/1/"


class Opened(NamedTuple):
    """The content of a run's folder, ready for `model.apply(variables, ...)`."""

    model: Any
    variables: Variables  # leaves have a leading S if the run had seeds and none was chosen
    config: Any  # a frozen dataclass with the recorded fields


def load(
    folder: str | os.PathLike,
    *,
    seed: int | None = None,
    step: int | None = None,
    parts: Sequence[str] | None = None,
    model: Any = None,
) -> Opened:
    """Loads the model, variables and config of a run; it runs no code from the folder.

    Args:
      folder: the run's folder.
      seed: the member of a run with seeds, counted from 0; None loads all, with a leading S.
      step: the step of the checkpoint to load; None loads the newest undamaged one.
      parts: the only parts of the model to load, for example ("decoder", "prior"), which suffices
        for sampling. The files of other parts may be missing.
      model: the run's model; it is required if the run was made without one, or if the model has
        parts from outside aejax.

    Returns:
      (model, variables, config). The variables are those that evaluation uses: averaged weights if
      the run has them.

    Raises:
      UserError: if the folder is no run, if all checkpoints are damaged, or if the model cannot be
        made again from its description.
    """
    folder = pathlib.Path(folder)
    record = read_json(folder / CONFIG)
    if model is None:
        if record["model"] is None:
            raise UserError(
                f"{folder / CONFIG} does not describe the model: give it as load(folder, model=...)"
                ", or give it to Run"
            )
        model = from_json(record["model"])
    found = checkpoint.newest(folder / CHECKPOINTS, lambda path: _wanted(path, parts), step)
    if found is None:
        raise UserError(f"{folder} has no checkpoint yet: let the run train until it writes one")
    leaves = {path: jnp.asarray(leaf.value()) for path, leaf in found.leaves.items()}
    members = _members(record)
    if seed is not None:
        if members is None:
            raise UserError(f"{folder} is a run without seeds: leave out seed={seed}")
        if not 0 <= seed < members:
            raise UserError(
                f"{folder} has {members} seeds: seed {seed} is none of them, so choose one from 0 "
                f"to {members - 1}"
            )
        leaves = {path: leaf[seed] for path, leaf in leaves.items()}
    return Opened(model, _variables(leaves), _config(record))


def _wanted(path: str, parts: Sequence[str] | None) -> bool:
    for prefix in (PARAMS, MEMORY, AVERAGE):
        if path.startswith(prefix):
            return parts is None or path.removeprefix(prefix).split("/")[0] in parts
    return False


def _variables(leaves: dict[str, jax.Array]) -> dict[str, Any]:
    params = _under(leaves, PARAMS)
    average = _under(leaves, AVERAGE)
    if params.keys() == average.keys():
        params = average
    return {"params": nest(params), "memory": nest(_under(leaves, MEMORY))}


def _under(leaves: dict[str, jax.Array], prefix: str) -> dict[str, jax.Array]:
    return {p.removeprefix(prefix): leaf for p, leaf in leaves.items() if p.startswith(prefix)}


def _members(record: dict[str, Any]) -> int | None:
    """Returns the number of seeds, read from the shape of the run's key: Key[] or Key[S]."""
    shape = (record["tree"] or {}).get("key", [None])[1:]
    return shape[0] if shape else None


def _config(record: dict[str, Any]) -> Any:
    fields = {name: _tuples(value) for name, value in record["config"].items()}
    cls = dataclasses.make_dataclass(record["class"], list(fields), frozen=True)
    return cls(**fields)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
