"""Keeps the result of a finished run as a small file, from which tables are made.

    python -m experiments keep runs/digits-vae

It writes experiments/results/NAME.json with the figures, the command, the hardware and the minutes.
`python -m experiments table` writes the tables of experiments/README.md from these files.
"""

from __future__ import annotations

import os
import pathlib
import platform
from typing import Any

import numpy as np

from aejax.errors import UserError
from aejax.files import check_name, json_fields, write_json
from aejax.files.json_fields import check_fields
from aejax.runs.folder import read_environment, read_result
from aejax.runs.metrics import NAME, read
from experiments.shared.place import say

# A call of several steps that took more than PAUSE times the median was interrupted: it counts as
# the median.
PAUSE = 10
# The checks of the fields of environment.json that are kept.
FACTS = {
    "command": json_fields.list_of(json_fields.text()),
    "versions": json_fields.table,
    "devices": json_fields.record_of(
        {
            "platform": json_fields.text(),
            "kind": json_fields.text(),
            "count": json_fields.positive_count,
        }
    ),
    "processor": json_fields.optional(json_fields.text()),
}
RESULTS = pathlib.Path(__file__).parent.parent / "results"


def command(run_dir: pathlib.Path, name: str | None = None) -> None:
    """Writes the result of a run to experiments/results/NAME.json.

    Args:
      run_dir: folder of a finished run or benchmark.
      name: name of the file without .json; the folder's name by default.

    Raises:
      UserError: if the folder is not that of a finished run, or the name cannot be that of a file.
    """
    write(run_dir, check_name(run_dir.resolve().name if name is None else name, "--name"))


def write(run_dir: pathlib.Path, name: str, words: list[str] | None = None) -> None:
    """Writes experiments/results/NAME.json, as `command` does.

    Args:
      run_dir: the folder of a finished run.
      name: the name of the file.
      words: the command to write in place of the one that the run was started by.
    """
    result = read_result(run_dir)
    facts = result.pop("environment", None) or read_environment(run_dir)
    try:
        check_fields("the environment", facts, FACTS)
    except ValueError as error:
        raise UserError(f"{run_dir} cannot be kept ({error}): run it again") from error
    minutes = {"minutes": round(_seconds(run_dir) / 60, 1)} if (run_dir / NAME).exists() else {}
    kept = {
        "command": portable(facts["command"] if words is None else words),
        "hardware": _hardware(facts),
        "versions": facts["versions"],
        **minutes,
        **result,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    write_json(path, kept)
    say(f"kept: {path}")


def portable(words: list[str]) -> str:
    """Joins a command's words to a line that does not depend on the machine.

    Flags for folders are left out, and the path after --peer-python becomes PATH.
    """
    found, skip = ["python"], False
    for word in words[1:]:
        flag, _, value = word.partition("=")
        if skip:
            skip = False
        elif flag in ("--out", "--data-dir", "--manual-dir", "--peer-python"):
            skip = not value
            found += [flag, "PATH"] if flag == "--peer-python" else []
        else:
            found.append(word)
    return " ".join(found)


def _hardware(facts: dict[str, Any]) -> str:
    devices = facts["devices"]
    if devices["platform"] == "cpu":
        cores = facts.get("cores") or os.cpu_count()
        processor = facts.get("processor") or platform.machine()
        return f"{cores} CPU core{'s' if cores != 1 else ''} ({processor})"
    return f"{devices['count']} x {devices['kind']}"


def _seconds(run_dir: pathlib.Path) -> float:
    """Returns the training seconds of all jobs of a run, without pauses between restarts."""
    total = 0.0
    for path in [run_dir / NAME, *run_dir.glob(f"*/{NAME}")]:
        chunks = np.diff(np.unique(read(path.parent)["time"]))
        if len(chunks):
            usual = np.median(chunks)
            total += float(np.sum(np.where(chunks > PAUSE * usual, usual, chunks)))
    return total
