"""The tiny language model of the tests of experiments."""

import json
import shutil

import pytest

from tests.language.parity import reference

WORDS = ["<unk>", "<s>", *(f"w{i}" for i in range(38))]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Makes a folder with random weights and a tokenizer of 38 words."""
    tokenizers = pytest.importorskip(
        "tokenizers", reason="tokenizers is not installed: pip install -e '.[language]'"
    )
    folder = tmp_path_factory.mktemp("lm") / "llama"
    shutil.copytree(reference.HERE / "llama", folder)
    words = {word: i for i, word in enumerate(WORDS)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>"}))
    return folder
