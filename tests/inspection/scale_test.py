"""Tests of what it costs to score many pictures: seconds of a processor, and memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

import jax
import numpy as np
import PIL.Image
import pytest

import aejax as ae
from aejax import inspection
from experiments import inspect
from experiments.shared import parts
from experiments.shared.course import drive
from experiments.shared.place import Place

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("coarse")]
SIDE, GIB = 64, 2**30


def crops(count, seed=0):
    """Makes grey pictures of smooth noise, u8[count, SIDE, SIDE, 1]."""
    rough = np.random.default_rng(seed).normal(120, 30, (count, SIDE // 4, SIDE // 4, 1))
    return np.repeat(np.repeat(rough, 4, 1), 4, 2).clip(0, 255).astype(np.uint8)


def test_a_thousand_tiles_are_scored_in_ten_seconds_of_two_cores():
    """Fails if a detector costs too much; processor time does not grow by other programs."""
    config, models = inspect.Config(dictionary_steps=20), {}
    batch = ae.data.arrays(crops(8) / np.float32(255), validation=0, test=0)[0]
    for name, job in inspect.build(config, (SIDE, SIDE, 1)).items():
        learner = ae.learner(job.model, job.objective, job.tx)
        state = jax.jit(learner.init)(jax.random.key(0), ae.data.Batches(batch, 4)[0])
        models[name] = (job.model, learner.variables(state))
    good, tiles, seconds = crops(150), crops(1_000, seed=1), {}
    for name, detector in parts.detectors(config, models).items():
        if name == "vae-regret":
            continue
        state = detector.fit(jax.random.key(0), good)
        inspection.detect(detector, state, tiles[:50])  # compiles
        start = time.process_time()
        inspection.detect(detector, state, tiles)
        seconds[name] = round(time.process_time() - start, 2)
    sys.stdout.write(f"{seconds}\n")
    assert max(seconds.values()) < 20, seconds


CHILD = """
import json, pathlib, resource, sys
from experiments.tools.score import open_detector, scored
opened = open_detector(pathlib.Path(sys.argv[1]), "padim")
for count in (200, 10_000):
    found = sum(1 for _ in scored(opened, [pathlib.Path(sys.argv[2])] * count))
    assert found == count
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
"""


def test_ten_thousand_pictures_are_scored_in_two_gibibytes(tmp_path):
    """Fails if pictures or maps are kept; the child may not allocate more than 2 GiB."""
    folder, run = tmp_path / "good", tmp_path / "run"
    folder.mkdir()
    for i, picture in enumerate(crops(60)):
        PIL.Image.fromarray(picture[..., 0]).save(folder / f"{i}.png")
    config = inspect.Config(
        dataset=str(folder), steps=1, chunk=1, batch=8, dictionary_steps=2, k=(2, 4), k_used=2,
        width=4, remembered=20, regret_steps=0, false_alarms=0.1, components=4,
    )  # fmt: skip
    drive(inspect.EXPERIMENT, config, Place(out=str(run)))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(run), str(folder / "0.png")],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (2 * GIB, 2 * GIB)),
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    few, many = (1024 * json.loads(line) for line in done.stdout.splitlines())
    sys.stdout.write(f"at most {few / GIB:.2f} GiB for 200 pictures, {many / GIB:.2f} for 10,000\n")
    assert many < 2 * GIB
    assert many - few < GIB / 8
