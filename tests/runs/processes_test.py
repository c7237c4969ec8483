"""Tests that a run of two processes survives the death of one of them, and stops as one."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest

import aejax as ae
from tests import kinds

pytestmark = pytest.mark.slow
STEPS = 400


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = STEPS


def started(place: pathlib.Path, count: int = 2) -> list[subprocess.Popen]:
    """Starts the processes of one run; if there is one, it has as many devices."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    return [
        kinds.python(
            *("-m", "tests.runs.processes_test", port, str(rank), str(count), str(place)),
            devices=2 // count,
        )
        for rank in range(count)
    ]


def ended(processes: list[subprocess.Popen], seconds: float = 300) -> list[str]:
    try:
        return [kinds.output(process, seconds) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()


def logged(place: pathlib.Path) -> str:
    return re.sub(r'"time": [0-9.]+, ', "", (place / "metrics.jsonl").read_text())


def shas(said: list[str]) -> list[str]:
    return [re.findall(r"^sha (\w{64})$", text, re.MULTILINE)[0] for text in said]


def kernels(place: pathlib.Path) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(ae.load(place).variables["params"])]


def test_one_of_two_is_killed_and_both_go_on(tmp_path):
    """Fails if process 1 restores another step than process 0, or if metrics are not cut."""
    whole = shas(ended(started(tmp_path / "whole")))
    assert whole[0] == whole[1]
    for rank in (0, 1):
        place = tmp_path / f"killed-{rank}"
        both = started(place)
        end = time.monotonic() + 300
        while not any((place / "checkpoints").glob("[0-9]*")):
            assert time.monotonic() < end
            time.sleep(0.01)
        both[rank].kill()
        both[1 - rank].kill()  # the other one waits for it until it gives up
        for process in both:
            process.communicate()
        said = ended(started(place))
        assert shas(said) == whole
        assert "restored step" in said[0]
        assert logged(place) == logged(tmp_path / "whole")
    alone = tmp_path / "alone"
    ended(started(alone, count=1))
    for one, two in zip(kernels(alone), kernels(tmp_path / "whole"), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_a_full_disk_stops_both(tmp_path):
    """Fails if process 1 waits for process 0, which has ended."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=300k", "none", str(disk)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can be made by root only")
    both = started(disk / "run")
    try:
        said = [process.communicate(timeout=120)[1] for process in both]
    finally:
        for process in both:
            process.kill()
        subprocess.run(["umount", str(disk)], check=False)  # noqa: S607
    assert "No space left on device" in said[0]
    assert "process 0 could not write" in said[1]
    assert all(process.returncode == 2 for process in both)


# The code below is one of the processes.


def main(port: str, rank: str, count: str, place: str) -> None:
    if int(count) > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", int(count), int(rank))
    mesh = ae.mesh(data=2)
    train = ae.data.arrays(kinds.pixels(), binarise="dynamic")[0]
    learner = ae.learner(kinds.variational(), ae.elbo(), optax.adam(1e-3))
    learner = ae.compiled(ae.chunked(learner, 20), mesh)
    batches = ae.data.Batches(train, size=16, seed=0)
    code = 0
    model = kinds.variational()
    try:
        with ae.Run(place, Config(), model=model, checkpoint_seconds=0.2) as run:
            begun = run.restore(learner.init(jax.random.key(0), batches[0]))
            for state, metrics in ae.loop(learner, begun, batches, STEPS):
                run.log(state, metrics)
                run.save(state)
                time.sleep(0.02)  # so that it is still at it when it is killed
            print("sha", run.finish({"loss": metrics["loss"][-1]}, state)["params_sha256"])
    except ae.UserError as error:
        print(error, file=sys.stderr)
        code = 2
    sys.stdout.flush()
    if int(count) > 1 and code == 0:
        jax.distributed.shutdown()
    sys.stderr.flush()
    os._exit(code)  # the other process may be gone already, for which shutting down would wait


if __name__ == "__main__":
    main(*sys.argv[1:])
