"""config.json: the description of a run, which is compared with the code at each start.

    record = describe(config, experiment="digits-vae", model=model, objective=objective)
    compare(read_config(folder), record, may_change=("data_dir",))  # the error names what differs

Errors name fields by their path: config.latents, objective.rate.weight, model.bottleneck.latents.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from aejax.errors import UserError
from aejax.files import as_json, json_fields
from aejax.runs.leaves import kinds, misfit
from aejax.runs.model_json import to_json
from aejax.types import Objective


def _kind(value: Any) -> bool:
    """Returns whether a value is [dtype or key implementation, *shape], as `Leaf.kind` returns."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], str)


# The checks of the fields of config.json, which may have been edited, or come from somebody else.
_SETTING = {
    "members": json_fields.list_of(json_fields.count),
    "model": json_fields.optional(json_fields.table),
}
FIELDS = {
    "experiment": json_fields.optional(json_fields.text()),
    "class": json_fields.text("[^\\W0-9][\\w.]*"),
    "config": json_fields.table,
    "objective": json_fields.optional(json_fields.table_of(json_fields.table)),
    "model": json_fields.optional(json_fields.table),
    "sweep": json_fields.optional(json_fields.table_of(json_fields.record_of(_SETTING))),
    "metrics": json_fields.optional(json_fields.list_of(json_fields.text())),
    "prng": json_fields.optional(json_fields.text()),
    "tree": json_fields.optional(json_fields.table_of(_kind)),
}

MISSING = object()  # the value of an entry that only the other of two compared records has
# Terms that have another name in older records -> their name today.
RENAMED = {"revival": "auxk"}
# A schedule is code and cannot be stored, so its values at these steps are stored and compared.
SCHEDULE_STEPS = (0, 1, 10, 100, 1_000, 10_000, 100_000)


def describe(
    config: Any,
    experiment: str | None = None,
    model: Any = None,
    objective: Objective | None = None,
    settings: Any = None,
) -> dict[str, Any]:
    """Returns the record of a run for config.json, except what depends on the training state.

    Args:
      config: a dataclass or mapping of numbers and strings.
      experiment: the name of the experiment, by which later commands find its code.
      model: the model, which `aejax.runs.model_json` converts to JSON; if settings are given, a
        function that returns the model of one setting.
      objective: the loss as a mapping from a name to (weight, term).
      settings: the settings of a sweep (`aejax.swept`), a pytree with leaves [S]; None: no sweep.

    Raises:
      UserError: if config is neither a dataclass nor a mapping, or if one of its fields cannot be
        written as JSON.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        fields, name = dataclasses.asdict(config), type(config).__name__
    elif isinstance(config, Mapping):
        fields, name = dict(config), "Config"
    else:
        raise UserError(f"config is a {type(config).__name__}: give a dataclass or a mapping")
    sweep = None if settings is None else swept_models(model, settings)
    if sweep is not None:
        described = sweep["0"]["model"]
    else:
        described = None if model is None else as_json(to_json(model))
    return {
        "experiment": experiment,
        "class": name,
        "config": as_json(fields),
        "objective": None if objective is None else {n: _term(*objective[n]) for n in objective},
        "model": described,
        "sweep": sweep,
        "metrics": None,
        "prng": None,
        "tree": None,
    }


def swept_models(build: Any, settings: Any) -> dict[str, Any]:
    """Returns the description of a sweep, with one entry for each distinct setting.

    It is {"0": {"setting": ..., "members": [...], "model": ...}, "1": ...}. The list "members"
    contains the indices, from 0 to S - 1, of the models that are trained with this setting.

    Args:
      build: a function that returns the model of one setting; None: the models are not described.
      settings: a pytree with leaves [S].
    """
    leaves, tree = jax.tree.flatten(settings)
    rows = list(zip(*(np.asarray(leaf).tolist() for leaf in leaves), strict=True))
    found = {}
    for i, row in enumerate(dict.fromkeys(rows)):
        setting = jax.tree.unflatten(tree, row)
        found[str(i)] = {
            "setting": as_json(setting),
            "members": [j for j, other in enumerate(rows) if other == row],
            "model": None if build is None else as_json(to_json(build(setting))),
        }
    return found


def with_state(record: Mapping[str, Any], state: Any) -> dict[str, Any]:
    """Returns a record of `describe` with two more entries, which describe the training state.

    "prng" is the implementation of the state's random key, and "tree" the dtypes and shapes of its
    arrays.
    """
    tree = kinds(state)
    keys = [kind[0] for kind in tree.values() if kind[0].startswith("key<")]
    return {**record, "prng": keys[0][4:-1] if keys else None, "tree": tree}


def compare(
    old: Mapping[str, Any], new: Mapping[str, Any], may_change: Sequence[str] = ()
) -> list[str]:
    """Compares the record of a run in its folder with that of the current code.

    Args:
      old: the content of config.json.
      new: what `describe` or `with_state` returned; entries that are None are not compared.
      may_change: the names of fields of config that may differ. The field `steps` may always
        increase.

    Returns:
      A list with a phrase "FIELD was OLD and is NEW" for each field of may_change that differs.

    Raises:
      UserError: if anything else differs; the error names the field, its old and its new value.
    """
    changed = []
    was, now = old["config"], new["config"]
    for field, before, after in differences(was, now):
        name = field.split(".")[0]
        words = f"{field} was {_words(before)} and is {_words(after)}"
        if name in may_change:
            changed.append(words)
        elif name == "steps" and _number(before) and _number(after):
            if after < before:
                raise UserError(
                    f"steps was {before} and is {after}, but the number of steps of a run cannot "
                    "decrease: give at least as many, or choose another folder"
                )
        else:
            raise _refused(words)
    old = with_names_of_today(old, new)
    longer = was.get("steps") != now.get("steps")
    for section in ("experiment", "class", "objective", "model", "sweep", "metrics", "prng"):
        if old.get(section) is None or new.get(section) is None:
            continue
        for field, before, after in differences(old[section], new[section], section):
            if section == "model" and before is MISSING and after is None:
                continue  # a later version added the field, which changes nothing where it is None
            schedule = ".schedule" in field and _number(before) and _number(after)
            # The values of a schedule may differ for two reasons: it may depend on the number of
            # steps, which may increase, and another device may compute slightly different values.
            if not (schedule and (longer or math.isclose(before, after, rel_tol=1e-4))):
                raise _refused(f"{field} was {_words(before)} and is {_words(after)}")
    if old.get("tree") and new.get("tree"):
        difference = misfit(new["tree"], old["tree"])
        if difference is not None:
            raise _refused(difference)
    return changed


def with_names_of_today(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an old record with the current names of those terms and metrics that were renamed."""
    found = dict(old)
    for was, now in RENAMED.items():
        terms, known = old.get("objective"), new.get("objective")
        if terms and known and was in terms and was not in known:
            found["objective"] = {now if name == was else name: terms[name] for name in terms}
        names, known = old.get("metrics"), new.get("metrics")
        if names and known and was in names and was not in known:
            found["metrics"] = sorted(now if name == was else name for name in names)
    return found


def _refused(words: str) -> UserError:
    return UserError(
        f"the folder holds a run with another config: {words}; restore the old value or choose "
        "another folder"
    )


def _term(weight: Any, term: Any) -> dict[str, Any]:
    if weight is None:
        return {"weight": "watched"}
    if callable(weight):
        values = {str(t): float(np.asarray(weight(t))) for t in SCHEDULE_STEPS}
        return {"weight": {"schedule": values}}
    return {"weight": float(weight)}


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields (path, old value, new value) for each innermost entry that differs in two records."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys([*old, *new]):
            inner = f"{path}.{name}" if path else name
            yield from differences(
                old.get(name, MISSING), new.get(name, MISSING), inner.replace(".fields.", ".")
            )
    elif old != new:
        yield path, old, new


def _words(value: Any) -> str:
    # Schedules and models are large, so that a whole entry is shortened.
    return "not there" if value is MISSING else f"{value!r:.400}"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
