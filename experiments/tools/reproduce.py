"""Fills the tables of published results within a time budget, on whatever machine it is started on.

    python -m experiments reproduce --list                # what is missing, and estimated minutes
    python -m experiments reproduce --budget 10m          # trains rows until the time is over
    python -m experiments reproduce mnist-iwae-1-iwae-50 --budget 2h --batch 2000
    python -m experiments.tools.reproduce --budget 10m    # the same, and needs jax, flax, optax,
                                                          # chex, orbax and prepared data alone

A row is a model of one of the published tables of experiments/README.md. Three models with
different seeds are trained in one program, in a process and a folder of their own. When the time is
over, the row that is being trained saves its state and stops; the same command continues it and
ends in the bits of a run that was never stopped. A finished row is kept in experiments/results, the
tables are written again, and it is not done again. The rows come in the order of
`experiments/shared/published.py`.

A batch of 100 suits a CPU, and one of 500 or 2,000 fills an accelerator. Each has its own learning
rate (`RATES`); whether all three end at the same figure after equal epochs was not measured. If the
budget ends while a row is evaluated, its evaluation begins anew the next time; `--nll-draws` and
`--tested` make it shorter. The estimates of `--list` count floating-point operations of the steps,
at the measured speed of one of the rows; a row that was begun has a speed of its own.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from aejax.errors import UserError
from experiments.shared.published import Row, Task, in_order

Batch = Literal[100, 500, 2_000]
# The learning rates of the experiments for each batch.
RATES = {
    "mnist-iwae": {100: 2e-3, 500: 4e-3, 2_000: 6e-3},
    "image-priors": {100: 5e-4, 500: 1e-3, 2_000: 2e-3},
}
TRAINED = {"mnist-iwae": 59_600, "image-priors": 50_000}  # the number of train images
UNITS = {"s": 1, "m": 60, "h": 3_600}
STOPPED = 128 + signal.SIGTERM  # the exit status of a run that saved its state at SIGTERM
SAVING = 30.0  # the last seconds of the budget, but at most a fifth of it, are for saving a state
PATIENCE = 120.0  # the seconds after which a process that does not end is killed
# What the process of one row runs; its argument is JSON.
CHILD = """
import json, sys
from experiments.tools import reproduce
reproduce.train(json.loads(sys.argv[1]))
"""


def command(
    rows: tuple[str, ...],
    budget: str = "10m",
    list: bool = False,
    batch: Batch = 100,
    epochs: float | None = None,
    nll_draws: int = 5_000,
    tested: int | None = None,
    seeds: int = 3,
    out: str = "runs/reproduce",
    data_dir: str | None = None,
    manual_dir: str | None = None,
) -> None:
    """Trains the rows that are missing until the budget is over, or lists them.

    Args:
      rows: names of rows, which are those of their results files; all rows by default.
      budget: the time to spend: a number and s, m or h, such as 10m.
      list: only print the rows and the estimated minutes of those that are missing.
      batch: examples in a batch.
      epochs: passes over the train images; by default those of the row's recipe, which are long.
      nll_draws: samples of the importance-weighted NLL.
      tested: number of test images of image-priors to evaluate; by default all 10,000.
      seeds: number of models with different seeds, trained together.
      out: the folder in which each row has a folder of its own.
      data_dir: the folder of prepared data sets.
      manual_dir: a folder with the raw files of the data sets, instead of a download.
    """
    more = {"seeds": seeds, "nll_draws": nll_draws}
    tasks = _tasks(rows, batch, epochs, more, tested, pathlib.Path(out).expanduser())
    missing = [task for task in tasks if not _kept(task)]
    if list:
        print(_listing(tasks, missing))
        return
    place = {"data_dir": data_dir, "manual_dir": manual_dir}
    deadline = time.monotonic() + seconds(budget)
    for task in missing:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        print(f"{task.name}: {' '.join(task.words)}", flush=True)
        status = _run(task, place, left)
        if status == STOPPED:
            print(f"{task.name}: stopped, because the budget of {budget} is over", flush=True)
            break
        if status:
            print(f"{task.name}: failed with status {status}; its error is above", flush=True)
            continue
        _keep(task)
    done = sum(map(_kept, tasks))
    print(f"{done} of {len(tasks)} rows are done; the same command continues")


def seconds(budget: str) -> float:
    """Returns the seconds of a budget such as "10m".

    Raises:
      UserError: if it is not a positive number and s, m or h.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if match is None or float(match[1]) == 0:
        raise UserError(
            f"--budget is {budget!r:.60}: give a number above 0 and s, m or h, such as 10m"
        )
    return float(match[1]) * UNITS[match[2]]


def schedule(row: Row, batch: int, epochs: float | None = None) -> dict[str, Any]:
    """Returns the settings of a row: its model, and steps and learning rate for a batch."""
    steps = (row.epochs if epochs is None else epochs) * TRAINED[row.experiment] / batch
    rate = RATES[row.experiment][batch]
    return {**row.settings, "batch": batch, "steps": max(round(steps), 1), "learning_rate": rate}


def train(task: Mapping[str, Any]) -> None:
    """Trains and evaluates one row in this process, which exits with 143 after SIGTERM.

    Args:
      task: the fields `experiment`, `settings` and `place`, as `_run` writes them.
    """
    from experiments.shared.course import drive
    from experiments.shared.experiment import by_name
    from experiments.shared.place import Place

    experiment = by_name(task["experiment"])
    assert experiment is not None
    signal.signal(signal.SIGTERM, _exit)
    try:
        drive(experiment, experiment.config(**task["settings"]), Place(**task["place"]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _exit(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


def _tasks(
    names: Sequence[str],
    batch: Batch,
    epochs: float | None,
    more: Mapping[str, Any],
    tested: int | None,
    out: pathlib.Path,
) -> list[Task]:
    """Returns the tasks of the named rows, or of all rows.

    Raises:
      UserError: if there is no such row, or epochs is not positive.
    """
    known = in_order()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"there is no row {unknown[0]!r:.60}: choose from {', '.join(known)}")
    if epochs is not None and not epochs > 0:
        raise UserError(f"--epochs is {epochs}: give a number above 0")
    if batch not in RATES["mnist-iwae"]:
        raise UserError(f"--batch is {batch}: choose from 100, 500 and 2000")
    tasks = []
    for name, row in known.items():
        if names and name not in names:
            continue
        settings = {**schedule(row, batch, epochs), **more}
        if tested is not None and row.experiment == "image-priors":
            settings["tested"] = tested
        label = f"{name}.batch-{batch}-steps-{settings['steps']}-seeds-{settings['seeds']}"
        tasks.append(Task(label, row, settings, out / label))
    return tasks


def _run(task: Task, place: Mapping[str, Any], left: float) -> int:
    """Trains a task in a process of its own and returns its exit status.

    Before `left` seconds are over the process gets SIGTERM, which makes it save its state.
    """
    asked = {
        "experiment": task.row.experiment,
        "settings": task.settings,
        "place": {**place, "out": str(task.folder)},
    }
    process = subprocess.Popen([sys.executable, "-c", CHILD, json.dumps(asked)])
    try:
        return process.wait(timeout=left - min(SAVING, left / 5))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return 0 if process.returncode == 0 else STOPPED
    finally:
        if process.poll() is None:  # this process was interrupted
            process.terminate()
            process.wait()


def _kept(task: Task) -> bool:
    from experiments.tools.keep import RESULTS

    return (RESULTS / f"{task.name}.json").exists()


def _keep(task: Task) -> None:
    """Keeps a finished row, and writes the tables of experiments/README.md."""
    from experiments.tools import keep, table

    keep.write(task.folder, task.name, task.words)
    table.command(keep.RESULTS.parent / "README.md")


def _listing(tasks: Sequence[Task], missing: Sequence[Task]) -> str:
    """Returns a line for each task: its name, the published figure, and what is left to do."""
    from experiments.shared.estimate import minutes_left

    found = minutes_left(missing)
    width = max(len(task.name) for task in tasks)
    lines = []
    for task in tasks:
        state = "done" if task not in missing else f"about {found[task.name]:,.0f} minutes"
        lines.append(f"{task.name:<{width}}  {task.row.published:>14}  {state}")
    return "\n".join(lines)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("rows", nargs="*", help="names of rows; all by default")
    parser.add_argument("--budget", default="10m", help="the time to spend, such as 10m")
    parser.add_argument("--list", action="store_true", help="only print what is missing")
    parser.add_argument("--batch", type=int, default=100, help="100, 500 or 2000")
    parser.add_argument("--epochs", type=float, help="passes over the train images")
    parser.add_argument("--nll-draws", type=int, default=5_000, help="samples of the NLL")
    parser.add_argument("--tested", type=int, help="number of test images of image-priors")
    parser.add_argument("--seeds", type=int, default=3, help="number of models of a row")
    parser.add_argument("--out", default="runs/reproduce", help="folder of the runs")
    parser.add_argument("--data-dir", help="folder of prepared data sets")
    parser.add_argument("--manual-dir", help="folder with raw files")
    signal.signal(signal.SIGTERM, _exit)
    try:
        command(**vars(parser.parse_args()))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    _main()
