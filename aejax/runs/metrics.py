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
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from aejax.errors import UserError
from aejax.files import as_json, writing

NAME = "metrics.jsonl"


class MetricsFile:
    """Writes one metrics.jsonl.

    If a write fails, no partial line remains; `resume` removes a partial line of a killed process.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self._descriptor: int | None = None

    def resume(self, step: int) -> None:
        """Opens the file and removes any partial line and the lines of `step` and later steps."""
        self.close()
        with writing(self.path):
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        end = 0
        for line in self.path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n") or (found := _step(line)) is None or found >= step:
                break
            end += len(line)
        with writing(self.path):
            os.ftruncate(self._descriptor, end)
            os.lseek(self._descriptor, end, os.SEEK_SET)

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
        lines = []
        for i in range(count):
            last = extra if i == count - 1 else {}
            if (first + i) % every and not last:
                continue
            cells = {name: column[i] for name, column in columns.items()} | last
            text = ", ".join(f"{json.dumps(name)}: {cell}" for name, cell in cells.items())
            values = {name: np.asarray(value)[..., i] for name, value in metrics.items()}
            for logger in loggers:
                logger(first + i, {**values, **(figures or {} if last else {})})
            lines.append(f'{{"step": {first + i}, "time": {now}, {text}}}\n')
        self._write("".join(lines).encode())

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
      UserError: if the folder has no metrics, or if a line is not JSON.
    """
    path = pathlib.Path(folder) / NAME
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): give the folder of a run with metrics"
        ) from error
    except ValueError as error:
        raise UserError(
            f"{path} has a line that is not JSON ({error}): remove that line"
        ) from error
    names = dict.fromkeys(name for row in rows for name in row if name != "step")
    columns = {}
    for name in names:
        shape = np.shape(next(row[name] for row in rows if name in row))
        missing = np.full(shape, np.nan)
        # The writer stores NaN and infinities as strings, which float() parses.
        columns[name] = np.array([np.asarray(row.get(name, missing), float) for row in rows])
    return {"step": np.array([row["step"] for row in rows], np.int64)} | columns


def _step(line: bytes) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


def _cells(values: np.ndarray) -> list[str]:
    """Converts f32[n], f32[S, n] or f32[S, L, n] to n JSON strings: numbers or (nested) lists."""
    return [_cell(value) for value in np.moveaxis(values, -1, 0).tolist()]


def _cell(value: Any) -> str:
    return f"[{', '.join(map(_cell, value))}]" if isinstance(value, list) else _number(value)


def _number(value: float) -> str:
    """Returns a number as JSON with nine digits, which restore a float32; NaN as a string."""
    return f"{value:.9g}" if math.isfinite(value) else json.dumps(as_json(value))
