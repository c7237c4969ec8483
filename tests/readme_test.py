"""The README's own text: its script runs, its commands stand there, its tables are their files'."""

from __future__ import annotations

import re
import runpy

import jax
import optax
import pytest

import aejax as ae
from experiments.tools.table import filled
from tests.kinds import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_script_runs_with_only_its_steps_replaced(tmp_path, monkeypatch):
    script = next(block for block in BLOCKS if "ae.Run(" in block)
    short = script.replace("steps: int = 5_000", "steps: int = 12")
    assert short != script
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "script.py").write_text(short)
    names = runpy.run_path("script.py", run_name="__main__")
    assert int(names["state"].step) == 12
    assert names["metrics"]["loss"].shape[0] == 5  # a call takes the steps that time allows
    model, variables, config = ae.load(tmp_path / "runs" / "digits", model=names["model"])
    assert config.steps == 12
    sample = model.apply(
        jax.tree.map(lambda leaf: leaf[0], variables), jax.random.key(0), 3, method="sample"
    )
    assert sample.shape == (3, 8, 8, 1)
    notebook = next(block for block in BLOCKS if "ae.load(" in block)
    given = notebook.replace('runs/digits-vae", seed=0', 'runs/digits", seed=0, model=model')
    assert given != notebook
    exec(compile(given, "README.md", "exec"), names)
    assert names["codes"].shape == (64, 8)
    assert names["samples"].shape == (16, 8, 8, 1)


def test_the_sparse_autoencoder_takes_a_step(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    block = next(block for block in BLOCKS if "ae.TopK(" in block)
    names = {"ae": ae, "optax": optax}
    exec(compile(block, "README.md", "exec"), names)
    learner, batch = names["learner"], ae.data.Batches(names["train"], 8)[0]
    _, metrics = jax.jit(learner.step)(learner.init(jax.random.key(0), batch), batch)
    assert metrics["l0"] == 16


def test_the_loss_that_it_adds_is_a_loss():
    block = next(block for block in BLOCKS if "def shrink" in block)
    names = {"ae": ae}
    exec(compile(block, "README.md", "exec"), names)
    assert set(names["objective"]) == {"distortion", "shrink"}


@pytest.mark.parametrize(
    "command",
    [
        "pip install -e . && python -m experiments digits-vae",
        "pip install -e '.[test]' && pytest",
    ],
)
def test_the_two_commands_stand_in_it(command):
    assert f"\n{command}\n" in README


def test_its_tables_are_what_the_results_files_say():
    """Fails if a figure is edited by hand, or a results file changes without the table."""
    assert filled(README) == README
