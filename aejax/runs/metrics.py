"""Writes and reads metrics.jsonl, a file with one line of JSON for each logged step.

file = MetricsFile(folder / "metrics.jsonl")
file.resume(500)                                   # drops the lines of step 500 and later
file.append(500, {"loss": np.zeros((5, 100))})     # writes steps 500 to 599, for 5 seeds
read(folder)["loss"]                               # f64[600, 5]
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from aejax.errors import UserError
from aejax.files import (
    as_json,
    json_fields,
    lines,
    open_file,
    parse_json,
    reading,
    reason,
    write_bytes,
    writing,
)
from aejax.files.json_file import MOST_BYTES

NAME = "metrics.jsonl"
DAMAGED = "metrics.damaged.jsonl"  # the lines that could not be read when a run was continued

# The check of a line. Steps are i64 when they are read as a column.
_FIELDS = {"step": lambda value: json_fields.count(value) and value < 2**63}


class MetricsFile:
    """Writes one metrics.jsonl.

    If a write fails, no partial line remains; `resume` removes a partial line of a killed process.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self._descriptor: int | None = None

    def resume(self, step: int) -> None:
        """Opens the file and drops the lines of `step` and later steps, which are taken again.

        Lines that cannot be read, and further lines of a step that has one, are moved to the file
        DAMAGED beside it, with a warning; all other lines before `step` stay. The beginning of a
        line that a killed process was writing is dropped.

        Raises:
          UserError: if the file cannot be read or written, or is not a regular file.
        """
        self.close()
        kept, damaged, whole = self._sorted(step)
        if damaged:
            self._set_aside(damaged)
        if not whole:
            write_bytes(self.path, b"".join(kept))
        with writing(self.path):
            self._descriptor = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666
            )
            end = sum(map(len, kept))
            os.ftruncate(self._descriptor, end)
            os.lseek(self._descriptor, end, os.SEEK_SET)

    def _sorted(self, step: int) -> tuple[list[bytes], list[bytes], bool]:
        """Returns the lines before `step` in the order of their steps, and the damaged lines.

        The third value is whether the first lines of the file are already those to keep.
        """
        if not self.path.exists():
            return [], [], True
        with reading(self.path, "restore it or remove it"), open_file(self.path) as file:
            whole = list(lines(file, MOST_BYTES))
        ended = list(whole)
        if ended and not ended[-1].endswith(b"\n"):
            last = ended.pop()
            ended += [] if _step(last) is None else [last + b"\n"]
        found: dict[int, bytes] = {}
        damaged: list[bytes] = []
        later: list[bytes] = []  # lines of `step` and after it, which end the file
        for line in ended:
            at = _step(line)
            if at is None or at in found:
                damaged.append(line)
            elif at >= step:
                later.append(line)
            else:
                damaged += later
                later = []
                found[at] = line
        kept = [found[at] for at in sorted(found)]
        return kept, damaged, whole[: len(kept)] == kept

    def _set_aside(self, damaged: Sequence[bytes]) -> None:
        path = self.path.with_name(DAMAGED)
        with writing(path), open(path, "ab", opener=_no_link) as file:
            file.writelines(damaged)
            file.flush()
            os.fsync(file.fileno())
        warnings.warn(
            f"{self.path} has {len(damaged)} damaged lines, which were moved to {path.name}; the "
            "other lines before the restored step were kept",
            stacklevel=4,
        )

    def append(
        self,
        first: int,
        metrics: Mapping[str, Any],
        every: int = 1,
        figures: Mapping[str, Any] | None = None,
        loggers: Sequence[Callable[[int, Mapping[str, Any]], None]] = (),
    ) -> None:
        """Writes the lines of consecutive steps in one call.

        Args:
          first: the step of the first entry.
          metrics: a mapping from a name to f32[n] or f32[S, n], on the host.
          every: only steps that are multiples of `every` get a line, and a step with `figures`.
          loggers: functions (step, {name: value}) that receive the same lines.
          figures: name -> validation result after the last of the n steps: a number, f32[S] or
            f32[S, L].

        Raises:
          UserError: if the disk is full; the file is not changed then.
        """
        count = np.shape(next(iter(metrics.values())))[-1]
        now = f"{time.time():.3f}"
        columns = {name: _cells(np.asarray(values)) for name, values in metrics.items()}
        extra = {name: _cells(np.asarray(x)[..., None])[0] for name, x in (figures or {}).items()}
        written = []
        for i in range(count):
            last = extra if i == count - 1 else {}
            if (first + i) % every and not last:
                continue
            cells = {name: column[i] for name, column in columns.items()} | last
            text = ", ".join(f"{json.dumps(name)}: {cell}" for name, cell in cells.items())
            values = {name: np.asarray(value)[..., i] for name, value in metrics.items()}
            for logger in loggers:
                logger(first + i, {**values, **(figures or {} if last else {})})
            written.append(f'{{"step": {first + i}, "time": {now}, {text}}}\n')
        self._write("".join(written).encode())

    def sync(self) -> None:
        """Waits until all lines are on the disk."""
        if self._descriptor is not None:
            with writing(self.path):
                os.fsync(self._descriptor)

    def close(self) -> None:
        """Closes the file; `resume` opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, text: bytes) -> None:
        if self._descriptor is None:
            raise UserError(f"{self.path} is not open: call run.restore(state) before run.log")
        with writing(self.path):
            before = os.lseek(self._descriptor, 0, os.SEEK_CUR)
            try:
                rest = memoryview(text)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError:
                os.ftruncate(self._descriptor, before)
                os.lseek(self._descriptor, before, os.SEEK_SET)
                raise


def read(folder: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a run's metrics as columns.

    Args:
      folder: the run's folder.

    Returns:
      A mapping from "step" to i64[n], and from each metric's name to f64[n], f64[n, S] or
      f64[n, S, L], with NaN for lines without this metric.

    Raises:
      UserError: if the folder has no metrics, or if a line is damaged or has something else than
        numbers.
    """
    path = pathlib.Path(folder) / NAME
    missing = f"{path} cannot be read (No such file or directory): give the folder of a run with "
    with reading(path, "restore it or remove the damaged lines", missing + "metrics"):
        with open_file(path, within=pathlib.Path(folder)) as file:
            rows = [_row(number, line) for number, line in enumerate(lines(file, MOST_BYTES), 1)]
        names = dict.fromkeys(name for row in rows for name in row if name != "step")
        columns = {name: _column(name, rows) for name in names}
        return {"step": np.array([row["step"] for row in rows], np.int64)} | columns


def _row(number: int, line: bytes) -> dict[str, Any]:
    try:
        row = parse_json(line)
        json_fields.check_fields("it", row, _FIELDS)
    except ValueError as error:
        raise ValueError(f"line {number}: {reason(error)}") from error
    return row


def _column(name: str, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Returns the values of a metric in all rows, with NaN where it is missing."""
    shape = np.shape(next(row[name] for row in rows if name in row))
    missing = np.full(shape, np.nan)
    try:
        # The writer stores NaN and infinities as strings, which float() parses.
        return np.array([np.asarray(row.get(name, missing), float) for row in rows])
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(
            f"the metric {name!r:.40} has values that are no numbers, or several shapes"
        ) from error


def _step(line: bytes) -> int | None:
    """Returns the step of a line, or None if it is damaged."""
    try:
        row = parse_json(line)
        json_fields.check_fields("it", row, _FIELDS)
    except ValueError:
        return None
    return row["step"]


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _cells(values: np.ndarray) -> list[str]:
    """Converts f32[n], f32[S, n] or f32[S, L, n] to n JSON strings: numbers or (nested) lists."""
    return [_cell(value) for value in np.moveaxis(values, -1, 0).tolist()]


def _cell(value: Any) -> str:
    return f"[{', '.join(map(_cell, value))}]" if isinstance(value, list) else _number(value)


def _number(value: float) -> str:
    """Returns a number as JSON with nine digits, which restore a float32; NaN as a string."""
    return f"{value:.9g}" if math.isfinite(value) else json.dumps(as_json(value))
