"""The folder of a run: functions that lock it, and write its config, environment and result."""

from __future__ import annotations

import contextlib
import pathlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aejax.errors import UserError
from aejax.files import (
    as_json,
    json_fields,
    lock_folder,
    read_json,
    remove_leftovers,
    unlock,
    write_json,
    writing,
)
from aejax.runs import checkpoint, config, manifest
from aejax.runs.config import compare
from aejax.runs.environment import FIELDS, differences, environment

CONFIG, ENVIRONMENT, RESULT = "config.json", "environment.json", "result.json"
CHECKPOINTS = "checkpoints"
# The checks of the fields of result.json that a start reads.
_RESULT = {
    "steps": json_fields.optional(json_fields.count),
    "params_sha256": json_fields.optional(json_fields.sha256),
}


def read_config(folder: pathlib.Path) -> dict[str, Any]:
    """Reads and checks the config.json of a run; it may be a stranger's.

    Raises:
      UserError: if the folder holds no run, or the file is damaged or has a field of a wrong kind.
    """
    return read_json(folder / CONFIG, config.FIELDS, within=folder)


def read_environment(folder: pathlib.Path) -> dict[str, Any]:
    """Reads and checks the environment.json of a run; the errors are those of `read_config`."""
    return read_json(folder / ENVIRONMENT, FIELDS, within=folder)


def read_result(folder: pathlib.Path) -> dict[str, Any]:
    """Reads and checks the result.json of a run; the errors are those of `read_config`."""
    return read_json(folder / RESULT, _RESULT, within=folder)


class RunFolder:
    """Reads, compares and writes the JSON files of one run.

    The recorded config is compared with that of the current code before anything is written.

    Args:
      path: the run's folder.
      record: the description of the run that `aejax.runs.config.describe` returns.
      may_change: the fields of config whose change causes a warning instead of an error.
      writes: whether this process writes files; it is True in exactly one process of a run.
    """

    def __init__(
        self,
        path: pathlib.Path,
        record: Mapping[str, Any],
        may_change: Sequence[str],
        writes: bool,
    ):
        self.path, self._writes = path, writes
        self.record: dict[str, Any] = dict(record)
        self._may_change = tuple(may_change)
        self._facts: dict[str, Any] = {}
        self._environment_written = False  # whether this process has written environment.json
        with writing(path):  # the path may be too long
            # whether the folder held a run before this start
            self.resumed = (path / CONFIG).exists()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Creates the folder and locks it, so that no other process writes to it.

        Raises:
          UserError: if the folder contains files of something else or a run with another config, or
            if another process has locked it.
        """
        if not self._writes:
            yield
            return
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(self.path)
        try:
            with writing(self.path):
                foreign = [p.name for p in self.path.iterdir() if not p.name.startswith(".")]
            if foreign and CONFIG not in foreign:
                raise UserError(
                    f"{self.path} is not the folder of a run (it holds {sorted(foreign)[0]} but no "
                    f"{CONFIG}): choose an empty or a new folder"
                )
            self.resumed = CONFIG in foreign
            if self.resumed and self._has_progress():
                compare(read_config(self.path), self.record, self._may_change)
            manifest.clean(self.path / CHECKPOINTS)
            with writing(self.path):
                remove_leftovers(self.path)
            yield
        finally:
            unlock(lock)

    def _has_progress(self) -> bool:
        """Returns whether there is a checkpoint or a result; until then the config may change."""
        return bool(manifest.steps(self.path / CHECKPOINTS)) or (self.path / RESULT).exists()

    def check(self, record: Mapping[str, Any]) -> None:
        """Compares config.json with a record of the current code that describes the state too.

        It warns of differences that `may_change` allows.

        Raises:
          UserError: if the record differs otherwise; nothing has been written then.
        """
        if not (self.resumed and self._has_progress()):
            return
        for words in compare(read_config(self.path), record, self._may_change):
            warnings.warn(f"{self.path}: {words}", stacklevel=3)

    def update(self, record: Mapping[str, Any]) -> None:
        """Writes config.json; where an entry of `record` is None, the file keeps its value.

        It is called only after the training state was created, so that the config may still be
        changed if the first start failed.
        """
        if not self._writes:
            return
        old = read_config(self.path) if (self.path / CONFIG).exists() else {}
        self.record = {
            name: old.get(name) if value is None else value for name, value in record.items()
        }
        if self.record != old:
            write_json(self.path / CONFIG, self.record)

    def add_facts(self, **facts: Any) -> None:
        """Adds entries to environment.json.

        They are written at once if this process has already written the file, and else with it.
        """
        self._facts |= as_json(facts)
        if self._environment_written:
            self.write_environment()

    def write_environment(self) -> None:
        """Writes environment.json.

        If the environment differs from that of the last start, it warns, and moves the old
        environment to the list "earlier" in the file.
        """
        if not self._writes:
            return
        self._environment_written = True
        path, now = self.path / ENVIRONMENT, as_json(environment())
        before = read_environment(self.path) if path.exists() else {}
        earlier = before.pop("earlier", None) or []
        found = differences(before, now)
        found += [
            f"{name} was {before[name]!r} and is {fact!r}"
            for name, fact in self._facts.items()
            if name in before and before[name] != fact
        ]
        for words in found:
            warnings.warn(f"{self.path}: {words}; figures may differ", stacklevel=4)
        kept = {name: before[name] for name in before if name not in now}
        earlier = [*earlier, before] if found else earlier
        write_json(path, {**now, **kept, **self._facts} | ({"earlier": earlier} if earlier else {}))

    def result(self) -> dict[str, Any] | None:
        """Returns the content of result.json, or None if the run has not done all its steps yet.

        A result is believed only if it has the sha256 of the newest checkpoint's parameters. For
        another one there is a warning, and the run continues from its checkpoint.
        """
        path = self.path / RESULT
        if not self.resumed or not path.exists():
            return None
        found = read_result(self.path)
        if found.get("steps") != self.record["config"].get("steps"):
            return None
        proof = checkpoint.newest_params_sha256(self.path / CHECKPOINTS)
        if proof is None or found.get("params_sha256") != proof:
            warnings.warn(
                f"{path} is not believed, because its params_sha256 is not that of the newest "
                "checkpoint: the run continues from its checkpoint and writes the file again",
                stacklevel=4,
            )
            return None
        return found

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Writes result.json, either completely or not at all."""
        if self._writes:
            write_json(self.path / RESULT, result)
