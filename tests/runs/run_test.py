"""Tests that a run that is stopped at any moment and started again ends in the same bits."""

import gc
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from aejax.runs import manifest
from aejax.runs.signals import Stop

ROOT = pathlib.Path(__file__).parents[2]

# What a user writes, small; the data is made here.
PROGRAM = """
import sys
import time
from dataclasses import dataclass
import jax, numpy as np, optax
import aejax as ae
from aejax.training.loop import loop
from aejax.runs.run import Run

@dataclass(frozen=True)
class Config:
    latents: int = 2
    steps: int = int(sys.argv[2])

config = Config()
x = np.random.default_rng(0).random((64, 12), dtype=np.float32)
train, _, _ = ae.data.arrays(x, binarise="dynamic")
model = ae.Autoencoder(
    encoder=ae.nets.MLP((8,)),
    bottleneck=ae.Gaussian(config.latents),
    decoder=ae.nets.MLP((8,), shape=(12,)),
    prior=ae.priors.Standard(),
    likelihood=ae.likelihoods.Bernoulli(),
)
learner = ae.seeds(ae.learner(model, ae.elbo(), optax.adam(1e-3)), 2)
learner = ae.compiled(ae.chunked(learner, 50))
batches = ae.data.Batches(train, size=16, seed=0)

with Run(sys.argv[1], config, checkpoint_seconds=0.05) as run:
    if run.result is not None:
        sys.exit(f"finished {run.result['params_sha256']}")
    state = run.restore(learner.init(jax.random.key(0), batches[0]))
    for state, metrics in loop(learner, state, batches, steps=config.steps):
        run.log(state, metrics)
        run.save(state)
        time.sleep(0.05)  # so that the fastest machine is still at it when the signal comes
    print("sha", run.finish({"loss": metrics["loss"][:, -1]}, state)["params_sha256"])
"""
STEPS = 3_000


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "train.py"
    path.write_text(PROGRAM)

    def start(folder, steps=STEPS):
        command = [sys.executable, str(path), str(folder), str(steps)]
        pipe = subprocess.PIPE
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env, cwd=ROOT)

    return start


@pytest.fixture(scope="module")
def unstopped(program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unstopped") / "run"
    out, err = program(folder).communicate(timeout=600)
    return folder, re.findall(r"^sha (\w{64})$", out, re.M)[0], err


def without_times(folder):
    return re.sub(r'"time": [0-9.]+, ', "", (folder / "metrics.jsonl").read_text())


def wait_until(process, true, seconds=300):
    """Polls closely, so that a checkpoint being written can be hit; False if the process ended."""
    end = time.monotonic() + seconds
    while process.poll() is None:
        if true():
            return True
        assert time.monotonic() < end
    return False


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def restored_at(out):
    return [int(step) for step in re.findall(r"^restored step (\d+) of", out, re.M)]


def advanced(process, places, writing=False):
    """Waits until a program has made a checkpoint of its own, and if asked is writing another."""
    begun = manifest.steps(places)[:1]
    assert wait_until(process, lambda: manifest.steps(places)[:1] > begun)
    if writing:
        assert wait_until(process, lambda: any(places.glob(".*.tmp")))


def logged(folder):
    return (folder / "metrics.jsonl").read_bytes().count(b"\n")


STOPS = ((signal.SIGTERM, 143), (signal.SIGINT, 130))


@pytest.mark.parametrize(
    ("kills", "stops"), [(2, STOPS[:1]), pytest.param(8, STOPS, marks=pytest.mark.slow)]
)
def test_stopped_and_resumed_is_never_stopped(program, unstopped, tmp_path, kills, stops):
    """Killed between checkpoints and while one is written, then stopped by signals.

    Fails if metrics are not cut at the restored step, or if a state's key is not restored. Of a
    signal it fails if the handler exits by itself: steps that were logged would be taken again.
    """
    folder = tmp_path / "run"
    places = folder / "checkpoints"
    moments = random.Random(0)
    restored = []
    for number in range(kills):
        writing = number % 2 == 1
        process = program(folder)
        advanced(process, places, writing)
        time.sleep(moments.uniform(0, 0.01 if writing else 0.15))
        process.kill()
        # Nothing was lost but what came after the newest checkpoint, whose metrics are all there.
        assert restored_at(process.communicate()[0]) == restored
        restored = [manifest.steps(places)[0]]
        assert restored[0] <= logged(folder)
    for number, status in stops:
        process = program(folder)
        advanced(process, places)
        process.send_signal(number)
        out, err = process.communicate(timeout=300)
        assert process.returncode == status, err
        assert restored_at(out) == restored
        assert f"this goes on: {sys.executable} " in out
        assert str(folder) in out
        assert "Traceback" not in err
        restored = [manifest.steps(places)[0]]
        assert restored[0] == logged(folder)
    assert restored[0] < STEPS, "it ended before it was stopped: give the program more steps"
    out, err = program(folder).communicate(timeout=600)
    assert restored_at(out) == restored, err
    assert re.findall(r"^sha (\w{64})$", out, re.M) == [unstopped[1]]
    assert without_times(folder) == without_times(unstopped[0])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(STEPS))


def test_a_finished_run_is_not_run_again(program, unstopped):
    """Fails if a result is not looked for: the folder's files would change."""
    folder, sha, _ = unstopped
    before = contents(folder)
    out, err = program(folder).communicate(timeout=600)
    assert err == f"finished {sha}\n"
    assert out == ""
    assert contents(folder) == before


def test_a_second_signal_stops_at_once(monkeypatch):
    exits = []
    monkeypatch.setattr(os, "_exit", exits.append)
    stop = Stop()
    stop.polled = True
    stop._handle(signal.SIGTERM, None)
    assert (stop.status, exits) == (143, [])
    stop._handle(signal.SIGINT, None)
    assert exits == [130]


def test_a_signal_within_a_callback_of_the_garbage_collector_ends_the_process():
    """Python discards what such a callback raises. Fails if the signal is then forgotten."""

    def once(phase, info):
        gc.callbacks.remove(once)
        signal.raise_signal(signal.SIGTERM)

    def wait():
        gc.callbacks.append(once)
        gc.collect()
        for _ in range(1000):
            time.sleep(0.01)

    stop = Stop()
    stop.install()
    try:
        with pytest.raises(SystemExit) as caught:
            wait()
    finally:
        stop.restore()
    assert caught.value.code == 143


def test_a_signal_outside_training_ends_the_process():
    """Fails if it only sets a flag: nobody would look at it during the evaluation."""
    with pytest.raises(SystemExit) as caught:
        Stop()._handle(signal.SIGINT, None)
    assert caught.value.code == 130
