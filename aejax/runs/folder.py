"""A run's folder: whose it is, who writes it, and its config, environment and result as JSON."""

from __future__ import annotations

import contextlib
import pathlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aejax.errors import UserError
from aejax.files import lock_folder, plain, read_json, unlock, write_json, writing
from aejax.runs import manifest
from aejax.runs.config import compare
from aejax.runs.environment import differences, environment

CONFIG, ENVIRONMENT, RESULT = "config.json", "environment.json", "result.json"
CHECKPOINTS = "checkpoints"


class RunFolder:
    """The JSON files of one run, compared before they are written.

    Args:
      path: the folder.
      record: of `aejax.runs.config.describe`.
      may_change: fields of config whose change is a warning.
      writes: False in all processes of a run but one.
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
        self._described = False  # whether environment.json is this start's
        self.resumed = (path / CONFIG).exists()  # whether a run was here before this start

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder and keeps other processes from writing it.

        Raises:
          UserError: it holds something else or another run, or another process writes it.
        """
        if not self._writes:
            yield
            return
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(self.path)
        try:
            foreign = [p.name for p in self.path.iterdir() if not p.name.startswith(".")]
            if foreign and CONFIG not in foreign:
                raise UserError(
                    f"{self.path} is no run (it holds {sorted(foreign)[0]} and no {CONFIG}): "
                    "choose another folder"
                )
            self.resumed = CONFIG in foreign
            if self.resumed and self._binds():
                compare(read_json(self.path / CONFIG), self.record, self._may_change)
            manifest.clean(self.path / CHECKPOINTS)
            yield
        finally:
            unlock(lock)

    def _binds(self) -> bool:
        """Whether something was reached with the recorded config: a run without is begun anew."""
        reached = any(p.name.isdigit() for p in (self.path / CHECKPOINTS).glob("*"))
        return reached or (self.path / RESULT).exists()

    def check(self, record: Mapping[str, Any]) -> None:
        """Compares a fuller record with config.json; what may change and did is a warning.

        Raises:
          UserError: the code no longer fits; nothing was written.
        """
        if not (self.resumed and self._binds()):
            return
        for words in compare(read_json(self.path / CONFIG), record, self._may_change):
            warnings.warn(f"{self.path}: {words}", stacklevel=3)

    def update(self, record: Mapping[str, Any]) -> None:
        """Writes config.json: what this record leaves open stays as it was."""
        if not self._writes:
            return
        # Not before there is a state, so that a start that failed binds nobody to its config.
        old = read_json(self.path / CONFIG) if (self.path / CONFIG).exists() else {}
        self.record = {
            name: old.get(name) if value is None else value for name, value in record.items()
        }
        if self.record != old:
            write_json(self.path / CONFIG, self.record)

    def add_facts(self, **facts: Any) -> None:
        """Adds to environment.json, which is written once the run's state is known to fit."""
        self._facts |= plain(facts)
        if self._described:
            self.write_environment()

    def write_environment(self) -> None:
        """Writes environment.json; what differs from the start before is a warning and is kept."""
        if not self._writes:
            return
        self._described = True
        path, now = self.path / ENVIRONMENT, plain(environment())
        before = read_json(path) if path.exists() else {}
        earlier = before.pop("earlier", [])
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
        """The result of a finished run of as many steps as are wanted now, or None."""
        path = self.path / RESULT
        if not self.resumed or not path.exists():
            return None
        found = read_json(path)
        return found if found.get("steps") == self.record["config"].get("steps") else None

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Writes result.json, whole."""
        if self._writes:
            write_json(self.path / RESULT, result)
