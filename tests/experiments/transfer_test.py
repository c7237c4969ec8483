"""Tests of transfer, probe and fine-tune: a small run end to end, and errors for bad input."""

from __future__ import annotations

import numpy as np
import pytest

from aejax.errors import UserError
from aejax.runs.folder import read_result
from experiments import transfer
from experiments.shared import transferring
from experiments.shared.course import drive
from experiments.shared.place import Place
from experiments.tools import fine_tune, probe

pytestmark = pytest.mark.usefixtures("coarse")
SMALL = transfer.Config(
    dataset="digits", seeds=2, steps=2, chunk=2, batch=20, latents=4, atoms=16, k=2, channels=4
)
ALL = "at_1437"  # the accuracy with the labels of all train pictures


def test_probes_get_equally_many_pictures_of_each_class():
    """Fails if a probe sees a class less often, or features of other pictures."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), [200, *[30] * 9])
    test = np.arange(10).repeat(20)
    columns = {
        "one-hot": lambda y: np.eye(10)[y],
        "noise": lambda y: random.normal(size=(len(y), 3)),
    }
    found = transferring.probes(
        {name: f(labels) for name, f in columns.items()}, labels,
        {name: f(test) for name, f in columns.items()}, test, (10, 100), seed=1,
    )  # fmt: skip
    assert found["one-hot"] == {"at_10": 1.0, "at_100": 1.0}
    assert found["noise"]["at_100"] < 0.3


def test_refusals():
    with pytest.raises(UserError, match="sides are multiples of 4"):
        transfer.build(SMALL, (10, 8, 1))


@pytest.mark.slow
def test_features_are_probed_and_fine_tuned(tmp_path, digits, capsys):
    """Fails if a kind of features is missing, or a tool does not open the run."""
    run = tmp_path / "run"
    result = drive(transfer.EXPERIMENT, SMALL, Place(out=str(run), data_dir=str(digits)))
    names = ("raw pixels", "PCA", "plain codes", "VAE means", "SAE codes", "VQ codes")
    for name in (*names, "patch features"):
        assert {"at_10", "at_1000", ALL} <= result[name].keys(), name
        assert len(result[f"{name}, best units"]["best_2"]["values"]) == 2
    assert "best_5" in result["raw pixels, best units"]
    assert "best_5" not in result["plain codes, best units"]  # which have 4 columns
    assert result["raw pixels"][ALL]["mean"] > 0.9
    assert (run / "report.html").stat().st_size > 0
    probe.command(run, "digits", data_dir=str(digits))
    row = read_result(run)["raw pixels on digits"]
    assert row[ALL]["mean"] == result["raw pixels"][ALL]["mean"]
    assert "Few labels on digits" in (run / "report.html").read_text()
    fine_tune.command(run, "digits", labels=60, steps=4, seeds=2, data_dir=str(digits))
    said = capsys.readouterr().out
    assert "encoder of the run" in said
    assert "random start" in said
    with pytest.raises(UserError, match="give 1 or more"):
        fine_tune.command(run, "digits", labels=0)
