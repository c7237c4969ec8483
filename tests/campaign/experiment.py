"""Kills and signals at named phases of real commands, whose runs end as if nothing had happened.

A case is one kill, or one SIGTERM, at a phase; several cases make one run, which is then finished
and compared with a run that was never stopped: the same parameters and figures to the bit, the same
lines of metrics, and no file but those of that run.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.kinds import ROOT

STEPS, PER_RUN = 20_000, 20
FLAGS = (
    *("--seeds", "2", "--steps", str(STEPS), "--chunk", "50", "--width", "8", "--latents", "2"),
    *("--nll-draws", "2", "--log-every", "10", "--batch", "32"),
)
# The phases in which a run is stopped. Of these, "data" and "start" come first in every command.
PHASES = ("data", "start", "step", "checkpoint", "step", "checkpoint", "result", "report")


def start(place: pathlib.Path) -> subprocess.Popen:
    """Starts the command; its run, its data and its reports are inside the folder."""
    words = ["-m", "experiments", "digits-vae", *FLAGS]
    words += ["--out", str(place / "run"), "--data-dir", str(place / "data")]
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def reached(phase: str, place: pathlib.Path) -> Callable[[], bool]:
    """Prepares a run for a phase, and returns a function that says whether it was reached."""
    run = place / "run"
    if phase == "data":
        shutil.rmtree(place / "data", ignore_errors=True)
        return lambda: any((place / "data").glob(".preparing-*/*"))
    if phase == "step":
        before = logged(run)
        return lambda: logged(run) > before
    if phase == "checkpoint":
        return lambda: any(path for job in jobs(run) for path in job.glob("checkpoints/.*.tmp"))
    if phase == "result":
        (run / "result.json").unlink(missing_ok=True)
        return (run / "plain" / "checkpoints" / str(STEPS)).exists
    if phase == "report":
        (run / "report.html").unlink(missing_ok=True)
        shutil.rmtree(run / "figures", ignore_errors=True)
        return lambda: any((run / "figures").glob("*"))
    return lambda: True


def logged(run: pathlib.Path) -> int:
    """Returns the bytes of all metrics of a run."""
    files = [job / "metrics.jsonl" for job in jobs(run)]
    return sum(path.stat().st_size for path in files if path.exists())


def jobs(run: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders of a run's jobs, of which the first is the run's own.

    No other folder is looked into, because the command removes some of them at the same time.
    """
    return [run, *(path.parent for path in run.glob("*/metrics.jsonl"))]


def stopped(place: pathlib.Path, phase: str, number: int, chance: random.Random) -> bool:
    """Starts the command and sends it a signal at a phase; False if it ended before the phase."""
    process, there = start(place), reached(phase, place)
    if phase == "start":
        time.sleep(chance.uniform(0.05, 4.0))
    end = time.monotonic() + 600
    while process.poll() is None and not there():
        assert time.monotonic() < end, f"the phase {phase} did not come"
        time.sleep(0.001)
    if phase != "start":
        time.sleep(chance.uniform(0, 0.02))
    early = process.poll() is not None
    process.send_signal(number)
    said, _ = process.communicate(timeout=600)
    if early:
        assert process.returncode == 0, said
        return False
    if number == signal.SIGTERM:
        # A second later the command may have ended by itself.
        assert process.returncode in (0, 143), (phase, process.returncode, said[-3000:])
        assert "Traceback" not in said, (phase, said[-3000:])
    return True


def ended(place: pathlib.Path) -> dict[str, Any]:
    """Finishes a run, and returns what must not depend on how often it was stopped."""
    process = start(place)
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    run = place / "run"
    result = json.loads((run / "result.json").read_text())
    result.pop("steps_per_second", None)
    lines = {
        str(path.relative_to(run)): re.sub(r'"time": [0-9.]+, ', "", path.read_text())
        for path in sorted(run.rglob("metrics.jsonl"))
    }
    files = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    return {"result": result, "metrics": lines, "files": {*map(_timeless, files)}}


def _timeless(name: str) -> str:
    """Removes the steps of checkpoints, which are written when there is time."""
    return re.sub(r"checkpoints/[0-9]+", "checkpoints/STEP", name)


def units(cases: range, place: pathlib.Path) -> Iterator[str]:
    """Yields "SIGNAL at PHASE" for each case, after the run that it belongs to has ended well."""
    (place / "whole").mkdir()
    whole = ended(place / "whole")
    for first in range(cases.start, cases.stop, PER_RUN):
        stops = range(first, min(first + PER_RUN, cases.stop))
        inside = place / f"run-{first}"
        inside.mkdir()
        done = []
        # The last two phases come once in each run, so that they are stopped at the end.
        order = sorted(stops, key=lambda case: PHASES[case % len(PHASES)] in ("result", "report"))
        for case in order:
            phase = PHASES[case % len(PHASES)]
            number = signal.SIGTERM if case % 6 == 5 else signal.SIGKILL
            if stopped(inside, phase, number, random.Random(case)):
                done.append(f"{number.name} at {phase}")
            else:
                done.append(f"{number.name} after the end")
        again = ended(inside)
        for name, value in whole.items():
            assert again[name] == value, (
                f"cases {stops}: {name} differs: {_first(again[name], value)}"
            )
        yield from done


def _first(found: Any, wanted: Any) -> str:
    if isinstance(wanted, set):
        return f"{sorted(found ^ wanted)[:5]}"
    different = [name for name in wanted if found.get(name) != wanted[name]]
    return f"{different}"[:500]
