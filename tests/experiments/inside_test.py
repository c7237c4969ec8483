"""Tests of lm-sae, lm-transcoder, lm-features and steer on a tiny model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments.__main__ import main

pytest.importorskip(
    "tokenizers", reason="tokenizers is not installed: pip install -e '.[language]'"
)
pytestmark = pytest.mark.usefixtures("coarse")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Makes texts of two topics, which have different words."""
    folder = tmp_path_factory.mktemp("texts") / "texts"
    rng = np.random.default_rng(0)
    for topic, low in (("even", 0), ("odd", 19)):
        (folder / topic).mkdir(parents=True)
        for i in range(200):
            lines = [" ".join(f"w{low + n}" for n in rng.integers(0, 19, 10)) for _ in range(6)]
            (folder / topic / f"{i}.txt").write_text("\n".join(lines))
    return folder


def flags(model, texts, tmp_path):
    """Returns the flags of a tiny run."""
    data = ["--data-dir", str(tmp_path / "data")]
    small = {
        "model": model,
        "corpora": texts,
        "tokens": 1_500,
        "labelled": 2_000,
        "evaluated": 256,
        "length": 16,
        "words": 0,
        "latents": 24,
        "l0": 4,
        "steps": 20,
        "chunk": 10,
        "batch": 64,
        "log-every": 5,
    }
    return [*data, *(word for k, v in small.items() for word in (f"--{k}", str(v)))], data


@pytest.mark.slow
def test_dictionaries_are_trained_measured_shown_and_steered(model, texts, tmp_path, capsys):
    own, data = flags(model, texts, tmp_path)
    run = tmp_path / "run"
    call = ["lm-sae", "--hook", "resid_post.0", "--kinds", "topk", "batchtopk", "--seeds", "2"]
    assert main([*call, *own, "--out", str(run)]) == 0, capsys.readouterr().err
    result = json.loads((run / "result.json").read_text())
    for row in ("topk", "batchtopk", "topk, untrained", "raw neurons", "dense probe"):
        assert row in result
    assert len(result["topk"]["ce_recovered"]["values"]) == 2
    assert 0 < result["topk"]["shared_over_seeds"]["mean"] <= 1
    assert result["topk"]["l0"]["mean"] == pytest.approx(4, abs=0.5)
    assert result["topk"]["topic_16"]["mean"] > 0.9  # the topics have different words
    assert "Explained variance by position" in (run / "report.html").read_text()
    capsys.readouterr()

    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({"3": {"label": "mine", "words": ["w3"]}, "4": {"label": "no"}}))
    call = ["lm-features", str(run), *data, "--labels", str(labels)]
    assert main(call) == 0, capsys.readouterr().err
    assert "untrained" in capsys.readouterr().out
    record = json.loads((run / "features" / "features.json").read_text())
    assert len(record["latents"]) == 24
    assert record["latents"][3]["label"]["text"] == "mine"
    assert record["latents"][3]["label"]["kind"] == "read from labels.json"
    assert record["latents"][4]["label"]["score"] is None
    assert (run / "features" / "features.html").is_file()

    steer = ["steer", str(run / "batchtopk")]
    assert main([*steer, "--latent", "3", "--prompt", "w1 w2 w3", "--count", "4"]) == 0
    said = capsys.readouterr().out
    assert "without:" in said
    assert "with:" in said
    for how in (["--ablate"], ["--clamp", "3"]):
        assert main([*steer, "--latent", "3", "5", "--prompt", "w1", "--count", "3", *how]) == 0
    capsys.readouterr()
    curve = ["steer", str(run), "--latent", "3", "--curve", "--words", "w3", "w4", *data]
    assert main([*curve, "--count", "4", "--strengths", "1", "40", "--prompts", "4"]) == 0
    found = json.loads((run / "steer-3.json").read_text())
    assert set(found["curves"]) >= {"latent", "random 0", "difference of class means"}
    assert found["curves"]["latent"][1]["kl"] > found["curves"]["latent"][0]["kl"]
    capsys.readouterr()
    for wrong, words in (
        (["--latent", "24", "--prompt", "w1"], "no latent 24: the dictionary has 0 to 23"),
        (["--latent", "1", "--curve", "--words", "w1 w2", *data], "is 2 tokens"),
        (["--latent", "1", "--model", "nowhere", "--prompt", "w1"], "no model nowhere"),
    ):
        assert main(["steer", str(run), *wrong]) == 2
        assert words in capsys.readouterr().err
    labels.write_text(json.dumps({"24": {"label": "x"}}))
    assert main(call) == 2
    assert "names the latent '24'" in capsys.readouterr().err


@pytest.mark.slow
def test_transcoders_take_the_place_of_an_mlp(model, texts, tmp_path, capsys):
    """Fails if the transcoder is judged by what it reads, or spliced in where it reads."""
    own, _ = flags(model, texts, tmp_path)
    run = tmp_path / "run"
    assert main(["lm-transcoder", "--layer", "0", *own, "--out", str(run)]) == 0
    result = json.loads((run / "result.json").read_text())
    for row in ("transcoder", "skip-transcoder", "linear map", "transcoder, untrained"):
        assert result[row]["explained_variance"]["mean"] <= 1
        assert "ce_recovered" in result[row]
    linear, skip = (result[n]["explained_variance"]["mean"] for n in ("linear map", "transcoder"))
    assert linear > 0.3
    assert skip > result["transcoder, untrained"]["explained_variance"]["mean"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--prompt", "w1"], "the folder of a run of lm-sae or lm-transcoder"),
        (["--prompt", " "], "there is no prompt, or an empty one"),
        ([], "there is no prompt, or an empty one"),
        (["--prompt", "w1", "--ablate", "--clamp", "2"], "contradict each other"),
    ],
)
def test_what_cannot_be_steered_is_refused(flags, words, tmp_path, capsys):
    config = {"experiment": "digits-vae", "class": "Config", "config": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["steer", str(tmp_path), "--latent", "1", *flags]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--l0", "99", "--latents", "24"], "--l0 is 99: give at most 24"),
        (["--kinds", "topk", "best"], "--kinds best: choose one or more of topk"),
        (["--hook", "resid_post.9"], "has layers 0 to"),
        (["--labelled", "3"], "--labelled is 3, which is fewer tokens"),
        (["--words", "-1"], "--words is -1"),
    ],
)
def test_what_cannot_be_trained_is_refused(model, texts, flags, words, tmp_path, capsys):
    own = ["--model", str(model), "--corpora", str(texts), "--data-dir", str(tmp_path)]
    small = ["--tokens", "256", "--length", "16", "--labelled", "64", "--words", "0"]
    call = ["lm-sae", *own, *small, "--hook", "resid_post.0", "--out", str(tmp_path / "run")]
    assert main([*call, *flags]) == 2
    assert words in capsys.readouterr().err
