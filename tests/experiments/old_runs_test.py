"""Tests that run folders of an earlier version still open, resume, report and sample.

`runs_0_1_0.zip` was written by the version before files moved into rooms. It holds a run of
digits-vae and a script's BatchTopK run, each stopped after 6 steps; its folder `after/` holds the
variables with which the same version ended after 9 steps without a stop.
"""

from __future__ import annotations

import json
import pathlib
import zipfile

import jax
import numpy as np
import optax
import pytest

import aejax as ae
from aejax.runs.leaves import paths
from experiments import __main__ as commands
from experiments import digits_vae
from experiments.shared.course import drive
from experiments.shared.place import Place

pytestmark = pytest.mark.usefixtures("coarse")
ARCHIVE = pathlib.Path(__file__).parent / "runs_0_1_0.zip"


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(folder)
    return folder


def check(variables, file: pathlib.Path, changed: tuple[str, ...] = ()) -> None:
    """Checks that leaves equal those of a file, to the bit on the machine that wrote it.

    Leaves named in `changed` are updated by another rule today, and only have to be there.
    """
    with np.load(file, allow_pickle=False) as kept:
        found = paths(variables)
        assert set(found) == set(kept.files)
        assert set(changed) <= set(kept.files)
        for name in set(kept.files) - set(changed):
            np.testing.assert_allclose(np.asarray(found[name]), kept[name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_an_old_run_of_an_experiment_goes_on_reports_and_samples(old, digits):
    """Fails if a class that config.json names, or a leaf of the state, has another path."""
    folder = old / "digits"
    model, _, _ = ae.load(folder, seed=0)
    assert model == digits_vae.build(digits_vae.Config(width=4, latents=2), (8, 8, 1))["vae"].model
    config = digits_vae.Config(
        seeds=2, steps=9, chunk=2, width=4, latents=2, nll_draws=2, batch=64, log_every=1
    )
    drive(digits_vae.EXPERIMENT, config, Place(out=str(folder), data_dir=str(digits)))
    check(ae.load(folder).variables, old / "after" / "digits.npz")
    check(ae.load(folder / "plain").variables, old / "after" / "plain.npz")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert sorted({json.loads(line)["step"] for line in lines}) == list(range(9))
    assert (folder / "report.html").stat().st_size > 10_000
    assert commands.main(["sample", str(folder), "--count", "2"]) == 0
    assert np.load(folder / "samples.npy", allow_pickle=False).shape == (2, 8, 8, 1)


def test_an_old_run_of_a_script_goes_on(old):
    """Fails if the leaves or fields of a sparse code with memory and threshold were renamed."""
    folder = old / "sparse"
    opened = ae.load(folder)
    scale = ae.nets.Scale
    model = ae.Autoencoder(
        scale(), ae.BatchTopK(16, 3, score_by_norm=True), ae.nets.Dictionary(6, scale=scale())
    )
    assert opened.model == model
    x = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    train, _, _ = ae.data.arrays(x, validation=4, test=4)
    objective = ae.sparse(auxk=1 / 32, dead_after=2)
    start = (ae.standardised(), ae.tied)
    learner = ae.learner(model, objective, optax.adam(1e-2), initialise=start)
    learner = ae.compiled(ae.chunked(learner, 3))
    batches = ae.data.Batches(train, 8, seed=0)
    with ae.Run(folder, {"steps": 9}, model=model, objective=objective) as run:
        restored = run.restore(learner.init(jax.random.key(0), batches[0]))
        assert int(restored.step) == 6
        for state, metrics in ae.loop(learner, restored, batches, 9, progress=False):
            run.log(state, metrics)
            run.save(state)
    # The average of BatchTopK's threshold followed the first steps too slowly.
    threshold = "memory/bottleneck/threshold"
    check(ae.load(folder).variables, old / "after" / "sparse.npz", changed=(threshold,))
