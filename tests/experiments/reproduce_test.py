"""Tests of the command that fills the published tables within a time budget."""

from __future__ import annotations

import importlib
import signal

import numpy as np
import pytest

from aejax.data.pictures.store import FILE, Prepared, write_prepared
from aejax.errors import UserError
from aejax.files import read_json
from experiments.shared import published
from experiments.shared.published import TABLES
from experiments.tools import keep, reproduce, table

ROWS = published.in_order()
# A process that says when it is ready, and does at SIGTERM what its argument says.
PROCESS = """
import signal, sys, time
def end(number, frame):
    if {!r} != "stay":
        print("saved", file=open({!r}, "w"))
        sys.exit(128 + number)
signal.signal(signal.SIGTERM, end)
time.sleep(60 if {!r} != "done" else 0)
"""


def test_every_row_has_its_place():
    """Fails if a row is left out, or done twice, or one that is not known comes first."""
    every = [row.results for table in published.TABLES.values() for row in table]
    assert sorted(ROWS) == sorted(every)
    assert tuple(ROWS)[: len(published.FIRST)] == published.FIRST


@pytest.mark.parametrize("name", ROWS)
def test_a_schedule_passes_over_equally_many_images(name):
    """Fails if the steps of a batch, or a setting that the experiment does not have, are wrong."""
    row = ROWS[name]
    config = importlib.import_module(f"experiments.{row.experiment.replace('-', '_')}").Config
    for batch in (100, 500, 2_000):
        made = config(**reproduce.schedule(row, batch, 10.0))
        images = 10 * reproduce.TRAINED[row.experiment]
        assert made.steps * made.batch == pytest.approx(images, abs=batch)
        assert {key: getattr(made, key) for key in row.settings} == row.settings


@pytest.mark.parametrize(("text", "found"), [("90s", 90.0), ("1.5m", 90.0), ("2h", 7_200.0)])
def test_a_budget_has_a_unit(text, found):
    assert reproduce.seconds(text) == found


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"budget": "10"}, "--budget is '10': give a number above 0 and s, m or h"),
        ({"budget": "0m"}, "--budget is '0m'"),
        ({"rows": ("mnist",)}, "there is no row 'mnist': choose from mnist-iwae-1-vae-1"),
        ({"epochs": 0.0}, "--epochs is 0.0: give a number above 0"),
        ({"batch": 7}, "--batch is 7: choose from 100, 500 and 2000"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(wrong, says, tmp_path):
    with pytest.raises(UserError, match=says):
        reproduce.command(**{"rows": (), "out": str(tmp_path), **wrong})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "left", "status"),
    [("done", 60, 0), ("save", 5, 128 + signal.SIGTERM), ("stay", 1, 128 + signal.SIGTERM)],
)
def test_a_process_is_stopped_when_the_time_is_over(kind, left, status, tmp_path, monkeypatch):
    """Fails if a process is not told to save, or if one that stays is waited for."""
    mark = tmp_path / "mark"
    monkeypatch.setattr(reproduce, "CHILD", PROCESS.format(kind, str(mark), kind))
    monkeypatch.setattr(reproduce, "PATIENCE", 0.5)
    row = ROWS["mnist-iwae-1-vae-1"]
    task = reproduce.Task("a", row, reproduce.schedule(row, 100), tmp_path / "a")
    assert reproduce._run(task, {}, left) == status
    assert mark.exists() == (kind == "save")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A folder with random images, prepared as MNIST and as Fashion-MNIST."""
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("prepared")
    for name in ("mnist", "fashion_mnist"):
        columns = {
            split: {
                "image": rng.integers(0, 256, (count, 28, 28, 1)).astype(np.uint8),
                "label": rng.integers(0, 10, count).astype(np.int32),
            }
            for split, count in (("train", 600), ("test", 20))
        }
        path = root / name / "1.0.0" / FILE
        path.parent.mkdir(parents=True)
        classes = tuple("0123456789")
        write_prepared(path, Prepared(name, columns, 255.0, classes, "made for a test"))
    return root


@pytest.fixture
def readme(tmp_path, monkeypatch):
    """A README with the two tables of published results, and a folder of results beside it."""
    monkeypatch.setattr(keep, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(table, "RESULTS", tmp_path / "results")
    path = tmp_path / "README.md"
    path.write_text("".join(f"<!-- published: {name} -->\n<!-- end -->\n" for name in TABLES))
    return path


@pytest.mark.slow
def test_all_rows_run_at_tiny_sizes(data_dir, readme, tmp_path, capfd):
    """Each row trains for a step and stands in a table; the second call has nothing to do."""
    small = {"epochs": 1e-4, "nll_draws": 2, "tested": 4, "seeds": 1}
    place = {"out": str(tmp_path / "runs"), "data_dir": str(data_dir)}
    reproduce.command((), budget="3h", **small, **place)
    assert f"{len(ROWS)} of {len(ROWS)} rows are done" in capfd.readouterr().out
    assert readme.read_text().count("--steps 1 --learning-rate") == len(ROWS)
    reproduce.command((), budget="3h", **small, **place)
    said = capfd.readouterr().out.splitlines()
    assert said == [f"{len(ROWS)} of {len(ROWS)} rows are done; the same command continues"]


@pytest.mark.slow
def test_a_row_that_is_stopped_again_and_again_ends_in_the_same_bits(data_dir, readme, tmp_path):
    """Fails if a stopped row begins anew, or if it is kept before it has ended."""
    name, found = "mnist-iwae-1-vae-1", []
    given = {"epochs": 3.0, "nll_draws": 2, "seeds": 2, "data_dir": str(data_dir)}
    for budget, folder in (("20s", "often"), ("1h", "once")):
        calls = 0
        while not list(keep.RESULTS.glob("*.json")):
            reproduce.command((name,), budget=budget, out=str(tmp_path / folder), **given)
            calls += 1
            assert calls < 40
        (kept,) = keep.RESULTS.glob("*.json")
        found.append((calls, read_json(kept, {})["parts_sha256"]))
        kept.unlink()
    (often, bits), (once, same) = found
    assert often > 1
    assert once == 1
    assert bits == same
