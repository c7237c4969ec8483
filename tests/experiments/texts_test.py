"""Tests the experiment on texts: its measures, a small run, and the tools that print texts."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import aejax as ae
from aejax.evaluation.ngram import NGram
from experiments import __main__ as commands
from experiments import lm_vae, prompt_vae, text_control, text_vae
from experiments.shared import answers, texts
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


PAIRS = prompt_vae.Config(
    steps=4,
    chunk=2,
    batch=8,
    length=8,
    width=4,
    latents=2,
    nll_draws=2,
    tested=6,
    asked=2,
    answers=3,
    others=3,
    temperatures=(0.5, 1.0),
    shares=(0.5,),
)


@pytest.mark.slow
def test_a_run_on_prompts_compares_curves_and_answers_a_prompt(tmp_path, capsys):
    """Fails if a model answers other prompts than were asked, or the tool cuts off the prompt."""
    random = np.random.default_rng(0)
    pairs = [
        {"prompt": f"p{i}", "answer": " ".join(random.choice(WORDS, 4)) + f" n{k}"}
        for i in range(40)
        for k in range(3)
    ]
    path, out = tmp_path / "pairs.jsonl", tmp_path / "run"
    path.write_text("\n".join(map(json.dumps, pairs)))
    config = dataclasses.replace(PAIRS, corpus=str(path))
    result = drive(prompt_vae.EXPERIMENT, config, Place(out=str(out)))
    for name in ("latents, temperature 0.5", "no-latents, top-p 0.5"):
        for measure in ("sample_perplexity", *answers.MEASURES):
            assert np.isfinite(result[name][measure]["mean"])
    assert "latents - top-p, at equal perplexity" in result
    page = (out / "report.html").read_text()
    assert "Variety over perplexity" in page
    capsys.readouterr()
    assert commands.main(["sample", str(out), "--count", "3", "--prompt", "p3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert "They answer “p3”." in (out / "samples.html").read_text()
    assert commands.main(["sample", str(out), "--count", "3"]) == 2
    assert "needs a context" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_moves_texts_to_other_topics(tmp_path):
    """Fails if the topic does not reach the decoder, or labels are those of other topics."""
    random = np.random.default_rng(0)
    words = {"warm": ("red", "orange", "gold"), "cold": ("blue", "green", "grey")}
    lines = [
        {"text": " ".join(random.choice(words[topic], 4)) + f" n{i}", "label": topic}
        for i in range(200)
        for topic in words
    ]
    path, out = tmp_path / "mine.jsonl", tmp_path / "run"
    path.write_text("\n".join(map(json.dumps, lines)))
    config = text_control.Config(
        corpus=str(path), steps=300, chunk=100, width=16, latents=4, nats=2.0, samples=20, tested=40
    )
    result = drive(text_control.EXPERIMENT, config, Place(out=str(out), data_dir=str(tmp_path)))
    assert result["real"]["topic_right"]["mean"] == 1.0
    assert result["given"]["topic_of_samples"]["mean"] > 0.9
    assert result["given"]["topic_moved"]["mean"] > 0.9
    assert result["vectors"]["topic_before"]["mean"] > 0.6
    lines = [{"text": line["text"]} for line in lines]
    path.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ae.UserError, match="needs texts of two topics or more"):
        text_control.data(config, Place(data_dir=str(tmp_path)))


@pytest.mark.slow
def test_a_run_trains_a_frozen_language_model_to_speak_from_codes(model, tmp_path, capsys):
    """Fails if its weights are in the checkpoints, or the tools do not find them again."""
    random = np.random.default_rng(0)
    lines = [{"text": " ".join(f"w{n}" for n in random.integers(0, 38, 4))} for _ in range(80)]
    path, out = tmp_path / "mine.jsonl", tmp_path / "run"
    path.write_text("\n".join(map(json.dumps, lines)))
    config = lm_vae.Config(
        model=str(model), corpus=str(path), steps=8, chunk=4, batch=4, length=8, layer=0, width=4,
        latents=2, prefix=1, tested=6, samples=4, texts=40, nll_draws=2,
    )  # fmt: skip
    place = Place(out=str(out), data_dir=str(tmp_path / "data"))
    result = drive(lm_vae.EXPERIMENT, config, place)
    for name in ("nll", "bleu_of_another", "lm_perplexity", "path_perplexity"):
        assert np.isfinite(result["latents"][name]["mean"])
    checkpoints = out / "checkpoints"
    assert not [file for file in checkpoints.rglob("*") if "blocks" in str(file)]
    capsys.readouterr()
    assert commands.main(["sample", str(out), "--count", "2"]) == 0
    assert commands.main(["interpolate", str(out), "w1 w2", "w3", "--steps", "3"]) == 0
    assert "to:   w3" in capsys.readouterr().out
    assert "The texts on the lines" in (out / "interpolation.html").read_text()


def test_curves_are_compared_at_equal_perplexity():
    """Fails if curves are compared point by point, or beyond where both are defined."""

    def rows(perplexities, values):
        pairs = zip(perplexities, values, strict=True)
        return [{"sample_perplexity": p, **dict.fromkeys(answers.MEASURES, v)} for p, v in pairs]

    line = rows(np.exp([3.0, 1.0, 2.0]), [0.3, 0.1, 0.2])  # 0.1 times the log perplexity
    other = rows(np.exp([1.5, 4.0]), [0.10, 0.35])  # 0.05 lower
    found = answers.at_equal_perplexity(line, other)
    assert found["coverage"] == pytest.approx(0.05)
    assert answers.at_equal_perplexity(other, line)["distinct_2"] == pytest.approx(-0.05)
    nowhere = answers.at_equal_perplexity(line, rows([1e3, 1e4], [0.0, 0.0]))
    assert np.isnan(nowhere["self_bleu"])
