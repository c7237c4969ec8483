"""Tests the experiment on texts: its measures, a small run, and the tools that print texts."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import aejax as ae
from aejax.evaluation.ngram import NGram
from experiments import __main__ as commands
from experiments import text_vae
from experiments.shared import texts
from experiments.shared.course import drive
from experiments.shared.place import Place

WORDS = ("red", "green", "blue", "round", "flat", "old")
SMALL = text_vae.Config(
    steps=4,
    chunk=2,
    batch=8,
    length=8,
    width=4,
    latents=2,
    nll_draws=2,
    tested=6,
    samples=3,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    random = np.random.default_rng(0)
    lines = [{"text": " ".join(random.choice(WORDS, 3 + i % 3)) + f" n{i % 40}"} for i in range(80)]
    path = folder / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path, str(folder / "data")


@pytest.mark.slow
def test_a_run_writes_figures_of_all_models_and_the_tools_print_texts(corpus, tmp_path, capsys):
    """Fails if a model gets the coding of other data, or a tool shows token ids."""
    path, data_dir = corpus
    config = dataclasses.replace(SMALL, corpus=str(path), only=("pretraining", "plain"))
    out = tmp_path / "run"
    result = drive(text_vae.EXPERIMENT, config, Place(out=str(out), data_dir=data_dir))
    own = result["pretraining"]
    for name in ("nll_per_token", "perplexity", "bleu", "sample_perplexity", "path_monotone"):
        assert np.isfinite(own[name]["mean"])
    tokens = result["real"]["tokens"]["mean"]
    assert own["nll"]["mean"] == pytest.approx(own["nll_per_token"]["mean"] * tokens)
    assert "nll" not in result["plain"]
    page = (out / "report.html").read_text()
    assert "pretraining: reconstructions" in page
    capsys.readouterr()
    assert commands.main(["sample", str(out), "--count", "3"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == (out / "samples.txt").read_text().splitlines()
    known = {"<unk>", *WORDS, *(f"n{i}" for i in range(40))}
    assert {word for line in said[:3] for word in line.split()} <= known
    ends = ["red round old", "flat blue unheard"]
    assert commands.main(["interpolate", str(out), *ends, "--steps", "3"]) == 0
    said = capsys.readouterr().out
    assert f"to:   {ends[1]}" in said
    assert said.count("\n  ") == 6
    assert commands.main(["interpolate", str(out), "red", ""]) == 2
    assert "text 1 is empty" in capsys.readouterr().err


def test_measures_of_the_experiment_by_hand(corpus):
    path, data_dir = corpus
    train, validation, test = text_vae.data(
        dataclasses.replace(SMALL, corpus=str(path)), Place(data_dir=data_dir)
    )
    assert texts.words(["A <unk>, red"]) == [["a", "unk", ",", "red"]]
    judge = texts.judge((train, validation, test))
    held_out = texts.words([*texts.contents(validation), *texts.contents(test)])
    model = NGram(held_out, 3)
    assert judge.real == pytest.approx(model.perplexity(texts.words(texts.contents(train))))
    found = texts.of_samples(["red blue", "red blue"], judge)
    assert found["distinct_2"] == 0.5
    assert found["sample_perplexity"] == pytest.approx(model.perplexity([["red", "blue"]]))
    with pytest.raises(ae.UserError, match="--only has no model 'other'"):
        text_vae.build(dataclasses.replace(SMALL, only=("other",)), (8,))
    with pytest.raises(ae.UserError, match="holds no texts"):
        texts.coder(ae.data.arrays(np.zeros((20, 3)))[0])
