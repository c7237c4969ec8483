"""Tests of the READMEs: scripts run, commands can be parsed, tables and links are right.

Tables and pictures were written by commands; they are made again here and compared.
"""

from __future__ import annotations

import functools
import importlib
import io
import pathlib
import re
import runpy
import shlex
import tomllib

import jax
import numpy as np
import pytest

import aejax as ae
import experiments.__main__ as command_line
from aejax.report.drawing import style
from experiments.shared import course
from experiments.shared.place import Place
from experiments.tools import pictures
from experiments.tools.table import filled
from tests.imports_test import ROWS
from tests.kinds import ROOT

PATHS = ("README.md", "aejax/README.md", "aejax/data/README.md", "aejax/language/README.md")
PATHS += ("aejax/nets/README.md", "aejax/training/README.md", "aejax/interop/README.md")
PATHS += ("aejax/dictionaries/README.md", "aejax/inspection/README.md")
PATHS += ("experiments/README.md", "aejax/FAMILIES.md")
# names of experiments that a page uses as examples, and that do not exist
EXAMPLES = ("NAME", "rings")
PAGES = {path: (ROOT / path).read_text() for path in PATHS}


def blocks(path: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[path], re.DOTALL)


def run_all(path: str) -> dict:
    """Runs the scripts of a page one after the other, as one script; returns its variables."""
    names = {"__name__": "readme"}
    for block in blocks(path, "python"):
        exec(compile(block, path, "exec", dont_inherit=True), names)
    return names


@pytest.fixture
def here(tmp_path, digits, monkeypatch):
    """Makes an empty folder, in which scripts run and data are prepared."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits))
    return tmp_path


def test_the_script_runs_with_only_its_steps_replaced(here):
    script, notebook, sparse = blocks("README.md", "python")
    short = script.replace("steps: int = 5_000", "steps: int = 12")
    assert short != script
    (here / "script.py").write_text(short)
    names = runpy.run_path("script.py", run_name="__main__")
    assert int(names["state"].step) == 12
    assert names["metrics"]["loss"].shape[0] == 5  # a call takes as many steps as its time allows
    model, variables, config = ae.load(here / "runs" / "digits", model=names["model"])
    assert config.steps == 12
    sample = model.apply(
        jax.tree.map(lambda leaf: leaf[0], variables), jax.random.key(0), 3, method="sample"
    )
    assert sample.shape == (3, 8, 8, 1)
    # A notebook has no Config class of the script, but has the model that the run stored.
    exec(compile(notebook, "README.md", "exec"), names)
    assert names["codes"].shape == (64, 8)
    assert names["samples"].shape == (16, 8, 8, 1)
    exec(compile(sparse, "README.md", "exec"), names)
    learner, batch = names["learner"], ae.data.Batches(names["train"], 8)[0]
    state = jax.jit(learner.init)(jax.random.key(0), batch)
    metrics = jax.jit(learner.step)(state, batch)[1]
    off = float(metrics["l0"]) / 16 - 1
    assert float(metrics["off_target"]) == pytest.approx(off, rel=1e-5)


def test_the_examples_of_each_part_run(here):
    """Fails if a contract changes and the page does not."""
    names = run_all("aejax/README.md")
    metrics = names["metrics"]
    assert set(metrics) >= {"shrink", "rate", "distortion"}
    assert all(np.isfinite(float(value)) for value in metrics.values())
    assert names["again"].activation == "topk"
    assert set(names["EXPERIMENT"].build(names["Config"](), (2,))) == {"vae"}


@pytest.mark.slow
def test_the_experiment_of_the_page_runs(here):
    names = run_all("aejax/README.md")
    config = names["Config"](steps=20, batch=16, chunk=20)
    result = course.drive(names["EXPERIMENT"], config, Place(out=str(here / "rings")))
    assert np.isfinite(result["nll"]["mean"])
    assert (here / "rings" / "report.html").exists()


@pytest.mark.slow
def test_data_comes_in_as_the_page_says(here):
    names = run_all("aejax/data/README.md")
    assert len(names["writer"].index.hooks) == 1
    assert names["batches"][0].x.shape == (64, 16)
    assert len(names["store"].splits(names["HOOK"])[0]) == 9_000
    assert np.isfinite(names["scores"]).all()
    assert names["windows"].shape[1:] == (24, 1)
    assert names["first"].shape == (3, 4)
    assert np.isfinite(names["imputed"]).all()
    assert names["drawn"].shape == (16, 2)
    assert names["suspect"].tolist() == [True, False]
    noisy = names["noisy"].batches(8, jax.random.key(0))
    batch = next(noisy)
    assert np.mean(np.asarray(batch.x) != np.asarray(batch.target)) > 0.1
    assert next(names["labelled"].batches(8)).context.shape == (8, 10)


@pytest.mark.slow
def test_networks_of_ones_own_train_as_the_page_says(here):
    names = run_all("aejax/nets/README.md")
    assert names["variables"]["batch_stats"]["encoder"]["norm"]["mean"].shape == (32,)
    assert names["test"] is not None


@pytest.mark.slow
def test_training_goes_as_the_page_says(here):
    names = run_all("aejax/training/README.md")
    assert names["rates"].shape == (3, 3)
    assert names["best"].variables["params"].keys() == {"encoder", "bottleneck", "decoder"}


def test_a_part_leaves_as_the_page_says(here):
    names = run_all("aejax/interop/README.md")
    assert names["found"]["score"].shape == (10,)
    assert names["found"]["anomalous"].dtype == bool
    assert (here / "out" / "run_exported.py").exists()


def test_the_page_on_inspection(here):
    """Fails if its script does not run, or its detector misses a bright spot."""
    names = run_all("aejax/inspection/README.md")
    assert (names["found"].score > names["limit"])[10:].all()


@pytest.mark.slow
def test_a_dictionary_is_made_saved_and_changed_as_the_page_says(here):
    """Fails if a name that the page uses is not reachable from `ae`."""
    names = run_all("aejax/dictionaries/README.md")
    assert names["again"].activation == "jumprelu"
    found = names["ae"].interop.load("transcoder")
    assert found.W_skip is not None
    assert names["W_dec"].shape == (64, 2, 32)


def commands() -> list[tuple[str, ...]]:
    """Returns the words of each different `python -m experiments ...` on all pages."""
    found = set()
    for text in PAGES.values():
        for line in re.findall(r"python -m experiments(?!\.)([^`\n#&]*)", text):
            found.add(tuple(shlex.split(line)))
    return sorted(found)


def test_every_command_is_read_by_the_command_line(monkeypatch, capsys):
    """Flags and values are parsed, but nothing runs. Fails if a flag is renamed."""
    called = []
    monkeypatch.setattr(course, "drive", lambda experiment, *_: called.append(experiment.name))
    known = set()
    for _, package in command_line.GROUPS:
        for name, module in command_line._modules(package).items():
            known.add(name)
            for word in ("command", "main"):
                if not hasattr(module, word):
                    continue

                @functools.wraps(getattr(module, word))
                def stub(*_, own_name=name, **flags):
                    called.append(own_name)

                monkeypatch.setattr(module, word, stub)
    found = [words for words in commands() if words and words[0] not in EXAMPLES]
    named = {words[0] for words in found}
    assert named == known  # a page names every experiment, benchmark and tool
    for words in found:
        if words[-1] == "--help":
            continue
        assert command_line.main(list(words)) == 0, words
        assert called.pop() == words[0]


def test_the_other_commands_are_there():
    """Extras, tests and files that a page names exist."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for path in PATHS:
        for line in filter(None, "\n".join(blocks(path, "bash")).splitlines()):
            first = line.split()[0]
            assert first in ("pip", "python", "pytest", "ruff", "pyright") or "=" in first, line
        for extra in re.findall(r"pip install -e '\.\[([\w,]+)\]'", PAGES[path]):
            assert set(extra.split(",")) <= set(extras["optional-dependencies"])
        for named in re.findall(r"\btests/\w+(?:/\w+)*\.py\b", PAGES[path]):
            assert (ROOT / named).exists(), named
    assert (ROOT / ".ci" / "run").exists()
    for command in (
        "pip install -e . && python -m experiments digits-vae",
        "pip install -e '.[test]' && pytest",
    ):
        assert f"\n{command}\n" in PAGES["README.md"]


def test_the_pages_can_be_read():
    assert len(PAGES["README.md"].encode()) <= 10_000
    assert len(PAGES["aejax/README.md"].encode()) <= 17_200
    shown = re.findall(r'<img src="([^"]+)"', PAGES["README.md"])
    assert len(shown) == 2
    assert sum((ROOT / path).stat().st_size for path in shown) <= 150_000


def anchors(text: str) -> set[str]:
    """Returns the names that GitHub gives to the headings of a page."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PATHS)
def test_links_lead_somewhere(path):
    prose = re.sub(r"```.*?```", "", PAGES[path], flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'<img src="([^"]+)"', prose)
    for link in links:
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (ROOT / path).parent / file if file else ROOT / path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


def test_the_rooms_stand_in_the_order_of_their_imports():
    """Fails if a room is added or moved, but the page is not changed."""
    table = PAGES["aejax/README.md"].partition("## The rooms")[2].partition("|---|")[2]
    rows = [line.split("|")[1] for line in table.partition("\n\n")[0].splitlines() if "|" in line]
    assert [set(re.findall(r"`(\w+)`", row)) for row in rows if "`" in row] == ROWS


def test_its_tables_are_what_the_results_files_say():
    """Fails if a number is edited by hand, or if a results file changes without its table."""
    page = PAGES["experiments/README.md"]
    assert filled(page) == page
    kept = {path.stem for path in (ROOT / "experiments" / "results").glob("*.json")}
    shown = set(re.findall(r"<!-- figures: ([\w-]+) -->", page))
    several = *re.findall(r"<!-- runs: ([\w-]+) ", page), "mnist-iwae", "image-priors"
    assert {name for name in kept - shown if not name.startswith(several)} == set()


def test_its_pictures_are_what_the_kept_results_draw():
    """Fails if a results file changes without its picture."""
    image = importlib.import_module("PIL.Image")
    page = PAGES["experiments/README.md"]
    with np.load(pictures.RESULTS / f"{pictures.SAMPLES}.npz", allow_pickle=False) as kept:
        assert f"`{kept['command']}`" in page
    drawn = pictures.figures()
    assert {path.stem for path in pictures.RESULTS.glob("*.png")} == set(drawn)
    for name, figure in drawn.items():
        assert f"results/{name}.png" in page
        pixels = [
            np.asarray(image.open(source).convert("RGB"), np.float32)
            for source in (
                pathlib.Path(pictures.RESULTS / f"{name}.png"),
                io.BytesIO(style.png(figure)),
            )
        ]
        assert pixels[0].shape == pixels[1].shape
        assert np.abs(pixels[0] - pixels[1]).mean() < 2.0, name
