"""Tests of lm-activations and lm-generate on a tiny model: what they write and what they refuse."""

import json

import numpy as np
import pytest

from aejax.data.activations import activations
from experiments.__main__ import main

pytest.importorskip(
    "tokenizers", reason="tokenizers is not installed: pip install -e '.[language]'"
)


@pytest.fixture
def texts(tmp_path):
    """Makes a folder of thirty texts."""
    folder = tmp_path / "texts"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(30):
        words = " ".join(f"w{n}" for n in rng.integers(0, 38, 20))
        (folder / f"{i}.txt").write_text(words)
    return folder


def test_activations_leave_a_store_and_a_report(model, texts, tmp_path, capsys, coarse):
    """Fails if sinks are stored, or if a second call reads again."""
    flags = ["--hooks", "resid_post.0", "mlp_out.1", "--length", "8", "--rows", "4"]
    flags += ["--out", str(tmp_path / "out"), "--data-dir", str(tmp_path / "data")]
    flags += ["--surveyed", "64"]
    assert main(["lm-activations", str(model), str(texts), *flags]) == 0
    store = activations(tmp_path / "out" / "store")
    tokens = 20 * store.index.settings["provenance"]["corpus"]["documents"]
    assert len(store) == tokens // 8 * 7 + max(0, tokens % 8 - 1)
    assert set(store.hooks) == {"resid_post.0", "mlp_out.1"}
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert len(result["kurtosis"]) == 2
    assert np.shape(result["norms"]) == (2, 8)
    page = (tmp_path / "out" / "report.html").read_text()
    for title in ("Norms by layer and position", "Attention sinks", "Layers", "The store"):
        assert title in page
    capsys.readouterr()
    assert main(["lm-activations", str(model), str(texts), *flags, "--bos"]) == 2
    assert "was begun with provenance" in capsys.readouterr().err


@pytest.mark.slow
def test_texts_are_continued_and_steered(model, tmp_path, capsys):
    np.save(tmp_path / "direction.npy", np.linspace(-9, 9, 16))
    call = ["lm-generate", str(model), "w1 w2 w3", "w4", "--count", "5"]
    said = []
    for more in ([], ["--hook", "resid_post.0", "--add", str(tmp_path / "direction.npy")]):
        assert main([*call, *more]) == 0
        said.append(capsys.readouterr().out.splitlines())
    assert [line.startswith(("w1 w2 w3", "w4")) for line in said[0]] == [True, True]
    assert said[0] != said[1]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--hook", "resid_post.0"], "needs an edit: give --add or --dictionary"),
        (["--add", "nowhere.npy"], "--add and --dictionary need a hook"),
        (["--hook", "resid_post.0", "--add", "nowhere.npy"], "nowhere.npy cannot be read"),
        (["--hook", "resid_post.0", "--dictionary", "nowhere"], "no file or folder nowhere"),
        (["--latents", "3"], "give it by --dictionary"),
        (["--top-k", "3"], "give --temperature above 0"),
        (["--count", "60"], "more than the model's context of 64"),
        (["--temperature", "-1"], "temperature is -1"),
    ],
)
def test_what_cannot_be_generated_is_refused(model, flags, words, capsys):
    assert main(["lm-generate", str(model), "w1 w2 w3 w4 w5", *flags]) == 2
    assert words in capsys.readouterr().err


def test_a_model_that_is_not_there_is_refused(texts, capsys):
    assert main(["lm-generate", "nowhere.gguf", "w1"]) == 2
    assert "there is no model nowhere.gguf" in capsys.readouterr().err
