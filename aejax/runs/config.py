"""config.json: what a run is, compared on every start, so that nothing goes on silently changed.

    record = describe(config, experiment="digits-vae", model=model, objective=objective)
    compare(read_json(path), record, may_change=("data_dir",))     # UserError names what differs

Fields are named by their path: config.latents, objective.rate.weight, model.bottleneck.latents.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from aejax.errors import UserError
from aejax.files import plain
from aejax.runs.leaves import kinds, misfit
from aejax.runs.model_json import to_json
from aejax.types import Objective

MISSING = object()  # in place of a value that one of two records lacks
# A schedule is code; what it gives at these steps is compared.
SCHEDULE_STEPS = (0, 1, 10, 100, 1_000, 10_000, 100_000)


def describe(
    config: Any,
    experiment: str | None = None,
    model: Any = None,
    objective: Objective | None = None,
) -> dict[str, Any]:
    """The record of a run before it has a state.

    Args:
      config: a dataclass or mapping of numbers and strings.
      experiment: its name, so that commands on the folder find the code again.
      model: described by `aejax.runs.model_json`.
      objective: name -> (weight, term).

    Raises:
      UserError: a field of config is neither a number nor text nor made of these.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        fields, name = dataclasses.asdict(config), type(config).__name__
    elif isinstance(config, Mapping):
        fields, name = dict(config), "Config"
    else:
        raise UserError(f"config is a {type(config).__name__}; give a dataclass or a mapping")
    return {
        "experiment": experiment,
        "class": name,
        "config": plain(fields),
        "objective": None if objective is None else {n: _term(*objective[n]) for n in objective},
        "model": None if model is None else plain(to_json(model)),
        "metrics": None,
        "prng": None,
        "tree": None,
    }


def with_state(record: Mapping[str, Any], state: Any) -> dict[str, Any]:
    """The record with the PRNG implementation and the tree of a state's arrays."""
    tree = kinds(state)
    keys = [kind[0] for kind in tree.values() if kind[0].startswith("key<")]
    return {**record, "prng": keys[0][4:-1] if keys else None, "tree": tree}


def compare(
    old: Mapping[str, Any], new: Mapping[str, Any], may_change: Sequence[str] = ()
) -> list[str]:
    """Compares what a folder was made with and what the code says now.

    Args:
      old: of config.json.
      new: of `describe` or `with_state`; sections that are None are not compared.
      may_change: fields of config that may differ. `steps` may grow.

    Returns:
      The fields of may_change that differ, each in words.

    Raises:
      UserError: anything else differs: the field, its old and its new value.
    """
    changed = []
    was, now = old["config"], new["config"]
    for field, before, after in _diff(was, now):
        name = field.split(".")[0]
        words = f"{field} was {_words(before)} and is {_words(after)}"
        if name in may_change:
            changed.append(words)
        elif name == "steps" and _number(before) and _number(after):
            if after < before:
                raise UserError(
                    f"steps was {before} and is {after}: a run goes on to more steps, never to "
                    "fewer; give at least as many or choose another folder"
                )
        else:
            raise _refused(words)
    longer = was.get("steps") != now.get("steps")
    for section in ("experiment", "class", "objective", "model", "metrics", "prng"):
        if old.get(section) is None or new.get(section) is None:
            continue
        for field, before, after in _diff(old[section], new[section], section):
            schedule = ".schedule" in field and _number(before) and _number(after)
            # A schedule may well be stretched over the steps, which may grow, and another device
            # may compute it to other last bits.
            if not (schedule and (longer or math.isclose(before, after, rel_tol=1e-4))):
                raise _refused(f"{field} was {_words(before)} and is {_words(after)}")
    if old.get("tree") and new.get("tree"):
        difference = misfit(new["tree"], old["tree"])
        if difference is not None:
            raise _refused(difference)
    return changed


def _refused(words: str) -> UserError:
    return UserError(
        f"this folder's run is another one: {words}; go back to what was recorded or choose "
        "another folder"
    )


def _term(weight: Any, term: Any) -> dict[str, Any]:
    if weight is None:
        return {"weight": "watched"}
    if callable(weight):
        values = {str(t): float(np.asarray(weight(t))) for t in SCHEDULE_STEPS}
        return {"weight": {"schedule": values}}
    return {"weight": float(weight)}


def _diff(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The innermost places where two pieces of JSON differ: (path, old, new)."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys([*old, *new]):
            inner = f"{path}.{name}" if path else name
            yield from _diff(
                old.get(name, MISSING), new.get(name, MISSING), inner.replace(".fields.", ".")
            )
    elif old != new:
        yield path, old, new


def _words(value: Any) -> str:
    return "not there" if value is MISSING else repr(value)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
