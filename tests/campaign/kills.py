"""Kills, signals and full disks at named phases of a small run, which ends as if there were none.

The run prepares a data set, trains with `ae.loop` and `ae.Run`, and writes its result and its
report, as a user's does. So that a start takes a tenth of a second, it is a fork of a process that
has imported everything, its step is one of numpy, which needs no compiler, and its data set is a
part of the digits. Several cases make one run, which is then finished and compared with a run that
was never stopped: the same result to the bit, the same lines of metrics, and no file but those of
that run. `experiment` does the same to a command that compiles.

Half of the kills come when the run is about to change a file or folder, each of these changes in
turn; the others at a random moment of a phase.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import pathlib
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import matplotlib.backends.backend_agg
import matplotlib.figure
import numpy as np
import orbax.checkpoint
import sklearn.datasets
import tensorflow_datasets

import aejax as ae
from aejax import report
from aejax.errors import UserError
from aejax.report.drawing import style
from aejax.runs import environment
from experiments import __main__ as commands

# What the run would import by itself, at every start.
WARM = (matplotlib.backends.backend_agg, matplotlib.figure, orbax.checkpoint, tensorflow_datasets)

STEPS, PER_RUN, SEEDS, EXAMPLES = 1_500, 25, 2, 40
PHASES = ("data", "start", "step", "checkpoint", "step", "checkpoint", "result", "report")
# What a file belongs to, by its path in the folder of a case.
PLACES = {
    "data": r"data\b",
    "checkpoint": r"run/checkpoints\b",
    "result": r"run/\.?result\.json",
    "report": r"run/(figures\b|\.?report\.html)",
    "start": r"run\b",
}
MOST_CHANGES = 40  # of one phase that are tried; a checkpoint has as many
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = STEPS


def init(key: Any, batch: ae.Batch) -> ae.State:
    """Makes a state with several leaves, of which one is integer and one is empty."""
    shape = (SEEDS, *batch.x.shape[1:])
    params = {"encoder": {"kernel": np.zeros(shape, np.float32)}, "bias": np.ones((SEEDS, 3))}
    opt = {"mean": np.zeros(shape, np.float32), "none": np.zeros((SEEDS, 0), np.float32)}
    return ae.State(np.int32(0), np.zeros((SEEDS, 2), np.uint32), params, {"age": key}, opt)


def step(state: ae.State, batch: ae.Batch) -> tuple[ae.State, dict[str, np.ndarray]]:
    """Moves the parameters by momentum towards a batch; each bit depends on all steps before."""
    kernel = state.params["encoder"]["kernel"]
    noise = np.random.default_rng([int(state.step), *state.key[0]]).random(kernel.shape, np.float32)
    mean = np.float32(0.9) * state.opt["mean"] + (batch.x.mean(0) + noise - kernel)
    moved = kernel + np.float32(0.01) * mean
    params = {"encoder": {"kernel": moved}, "bias": state.params["bias"] * 0.999}
    after = state._replace(
        step=np.int32(state.step + 1),
        params=params,
        memory={"age": state.memory["age"] + 1},
        opt={**state.opt, "mean": mean},
    )
    return after, {"loss": np.abs(mean).mean(axis=tuple(range(1, mean.ndim)))}


class Data:
    """Batch t is a function of t."""

    def __init__(self, pixels: np.ndarray):
        self._pixels = pixels

    def __getitem__(self, t: int) -> ae.Batch:
        rows = np.random.default_rng(t).integers(0, len(self._pixels), 8)
        x = self._pixels[rows].astype(np.float32)
        return ae.Batch(x, x)


def train(place: pathlib.Path, reached: Callable[[str], None]) -> None:
    """The run: it goes on where it was stopped."""
    splits = ae.data.images("digits", data_dir=place / "data")
    batches = Data(splits[0].arrays["image"])
    learner = ae.Learner(init, step, lambda state: {"params": state.params}, lambda *_: {})
    folder = place / "run"
    with ae.Run(folder, Config(), checkpoint_seconds=0.02) as run:
        if run.result is None:
            state = first = run.restore(learner.init(np.zeros(SEEDS, np.int32), batches[0]))
            reached("step")
            for state, metrics in ae.loop(learner, first, batches, STEPS):
                run.log(state, metrics)
                run.save(state)
            reached("result")
            run.finish({"first": jax.tree.leaves(state.params)[0]}, state)
    if not (folder / "report.html").exists():
        history = {"loss": report.history(folder)["loss"]}
        style.DPI = 20  # drawing is most of the time of a report
        report.write(folder, "digits", [report.curves_section(history)], results=run.result)


def few_digits() -> Any:
    """Returns the first digits, in place of scikit-learn's function that returns all."""
    found = DIGITS()
    return sklearn.utils.Bunch(
        **{**found, **{n: found[n][:EXAMPLES] for n in ("images", "target")}}
    )


DIGITS = sklearn.datasets.load_digits


class Phases:
    """Tells the parent when a phase is reached, counts its changes, and may end at one of them."""

    def __init__(self, place: pathlib.Path, pipe: int, stop: tuple[str, int] | None):
        self.place, self.pipe, self.stop = f"{place}/", pipe, stop
        self.counts = dict.fromkeys(PHASES, 0)

    def reached(self, phase: str) -> None:
        os.write(self.pipe, f"{phase}\n".encode())

    def __call__(self, event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            if not isinstance(given[2], int) or not given[2] & (os.O_WRONLY | os.O_RDWR):
                return
        elif event not in CHANGES:
            return
        path = str(given[0])
        if not path.startswith(self.place):
            return
        inner = path.removeprefix(self.place)
        phase = next((name for name, at in PLACES.items() if re.match(at, inner)), "start")
        if self.stop == (phase, self.counts[phase]):
            os.kill(os.getpid(), signal.SIGKILL)
        if not self.counts[phase]:
            self.reached(phase)
        self.counts[phase] += 1


class Ended(NamedTuple):
    """How a start of the run ended."""

    status: int  # negative: the signal that ended it
    said: str  # what it wrote to both of its outputs
    stopped: bool  # whether the parent sent its signal in time
    counts: dict[str, int]  # the changes in each phase, if it ended by itself


def started(
    place: pathlib.Path,
    at: tuple[str, int] | None = None,
    send: tuple[str, float, int] | None = None,
) -> Ended:
    """Starts the run in a fork.

    Args:
      place: the folder of the run, its data and what it says.
      at: a phase, and the number of the change in it at which the run is killed.
      send: a phase, the seconds after it was reached, and the signal that is sent then.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(place, writing, at)
    os.close(writing)
    heard, stopped = b"", False
    while True:
        ready, _, _ = select.select([reading], [], [], 240)
        assert ready, f"the run does not end; it said {heard!r}"
        block = os.read(reading, 2**12)
        heard += block
        if not block:
            break
        if send is not None and not stopped and f"{send[0]}\n".encode() in heard:
            time.sleep(send[1])
            os.kill(child, send[2])  # a child that has ended stays until it is waited for
            stopped = True
    os.close(reading)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = _said(place).read_text(errors="replace")
    counts = re.findall(r"counts (.*)", heard.decode())
    return Ended(status, said, stopped, json.loads(counts[0]) if counts else {})


def _child(place: pathlib.Path, pipe: int, at: tuple[str, int] | None) -> None:
    """What the fork does, as `python -m experiments` does it; it does not return."""
    signal.signal(signal.SIGTERM, commands._stop)
    said = os.open(_said(place), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    status = 70
    sklearn.datasets.load_digits = few_digits
    environment._commit = lambda folder: None  # two processes of git take longer than a start
    try:
        phases = Phases(place, pipe, at)
        sys.addaudithook(phases)
        phases.reached("begin")
        train(place, phases.reached)
        os.write(pipe, f"counts {json.dumps(phases.counts)}\n".encode())
        status = 0
    except UserError as error:
        print(f"error: {error}")
        status = 2
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _said(place: pathlib.Path) -> pathlib.Path:
    """Returns the file of what a run says, which lies outside its file system."""
    return place.parents[1 if place.name == "in" else 0] / "said"


def readied(place: pathlib.Path, phase: str) -> None:
    """Removes what a phase makes, so that the next start comes to it."""
    if phase == "data":
        shutil.rmtree(place / "data", ignore_errors=True)
    elif phase == "result":
        (place / "run" / "result.json").unlink(missing_ok=True)
    elif phase == "report":
        (place / "run" / "report.html").unlink(missing_ok=True)


def outcome(place: pathlib.Path, said: str) -> dict[str, Any]:
    """Returns what must not depend on how often a run was stopped."""
    run = place / "run"
    assert "damaged" not in said, said  # a kill leaves no damage
    lines = re.sub(r'"time": [0-9.]+, ', "", (run / "metrics.jsonl").read_text())
    steps = [json.loads(line)["step"] for line in lines.splitlines()]
    assert steps == list(range(STEPS)), f"{place} has steps twice or not at all"
    files = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    return {
        "result": json.loads((run / "result.json").read_text()),
        "metrics": lines,
        # The steps of checkpoints depend on time.
        "files": {re.sub(r"checkpoints/[0-9]+", "checkpoints/STEP", name) for name in files},
    }


def finished(place: pathlib.Path) -> dict[str, Any]:
    """Finishes a run, and returns its `outcome`."""
    end = started(place)
    assert end.status == 0, end.said
    return outcome(place, end.said)


def units(cases: range, place: pathlib.Path) -> Iterator[str]:
    """Yields what was done at which phase for each case, after its run has ended well."""
    gc.freeze()  # or a collection in the fork would copy the memory of all modules
    (place / "whole").mkdir()
    begun = time.monotonic()
    end = started(place / "whole")
    seconds = time.monotonic() - begun
    assert end.status == 0, end.said
    whole = outcome(place / "whole", end.said)
    print(f"a run takes {seconds:.1f} s and has {end.counts} changes", flush=True)
    for first in range(cases.start, cases.stop, PER_RUN):
        stops = range(first, min(first + PER_RUN, cases.stop))
        inside = place / f"run-{first}"
        inside.mkdir()
        done = []
        # These two phases come once in each run, so that they are stopped at the end.
        order = sorted(stops, key=lambda case: planned(case)[1] in ("result", "report"))
        for case in order:
            if planned(case)[0] == "full disk":
                done.append(filled(place / f"disk-{case}", random.Random(case), whole))
            else:
                done.append(stopped(inside, case, end.counts, seconds))
        _same(finished(inside), whole, f"cases {stops}")
        shutil.rmtree(inside)
        yield from done


def planned(case: int) -> tuple[str, str]:
    """Returns what a case does, and at which phase: of 25 cases 20 kill, and one fills the disk."""
    kind = {24: "full disk", 4: "SIGTERM", 10: "SIGTERM", 16: "SIGTERM", 22: "SIGTERM"}
    return kind.get(case % 25, "SIGKILL"), PHASES[case % len(PHASES)]


def stopped(place: pathlib.Path, case: int, counts: dict[str, int], seconds: float) -> str:
    """Stops a run once; returns what was done."""
    chance, (kind, phase) = random.Random(case), planned(case)
    number = signal.Signals[kind]
    readied(place, phase)
    each = (case + case // len(PHASES)) % 2  # both ways come at all phases
    if number == signal.SIGKILL and each and counts[phase]:
        # A later start has fewer files to write, and a run is to have many stops.
        change = case // (2 * len(PHASES)) % min(counts[phase], MOST_CHANGES)
        end = started(place, at=(phase, change))
        if end.status == 0:
            return f"{kind} after the end"
        assert end.status == -number, end
        return f"{kind} before a change of {phase}"
    early = "begin" if phase in ("data", "start") and chance.random() < 0.5 else phase
    delay = chance.uniform(0, seconds / 60)
    end = started(place, send=(early, delay, number))
    if not end.stopped or end.status == 0:
        assert end.status == 0, end
        return f"{kind} after the end"
    if number == signal.SIGTERM:
        assert end.status == 128 + number, end
        assert "Traceback" not in end.said, end
    else:
        assert end.status == -number, end
    return f"{kind} at {phase}"


def filled(place: pathlib.Path, chance: random.Random, whole: dict[str, Any]) -> str:
    """Runs on a small file system until it is full, makes it larger, and finishes the run."""
    place.mkdir()
    size = chance.randrange(40, 650)
    if not _mount("-t", "tmpfs", "-o", f"size={size}k", "none", str(place)):
        return "full disk skipped, because a small file system can be made by root only"
    try:
        (place / "in").mkdir()
        end = started(place / "in")
        if end.status == 0:
            return "full disk of enough room"
        assert end.status == 2, (size, end)
        assert "Traceback" not in end.said, (size, end)
        assert "No space left on device" in end.said.splitlines()[-1], (size, end)
        assert _mount("-o", "remount,size=64m", str(place))
        _same(finished(place / "in"), whole, f"a disk of {size} KiB")
    finally:
        subprocess.run(["umount", str(place)], check=False)  # noqa: S607
    return "full disk"


def _mount(*words: str) -> bool:
    mount = shutil.which("mount")
    if mount is None:
        return False
    return subprocess.run([mount, *words], capture_output=True, check=False).returncode == 0


def _same(found: dict[str, Any], whole: dict[str, Any], what: str) -> None:
    for name, value in whole.items():
        if isinstance(value, set):
            assert found[name] == value, f"{what}: {sorted(found[name] ^ value)[:5]}"
        assert found[name] == value, f"{what}: {name} differs"
