"""Tests that damaged and hostile files of language models are refused in one sentence, at once."""

import json
import shutil
import struct

import pytest

from aejax.data.text import coding
from aejax.errors import UserError
from aejax.language import gguf as ours
from aejax.language.huggingface import load_huggingface
from aejax.language.tokenizer import load_tokenizer
from tests.harm import little, needs_linux
from tests.language.parity import reference
from tests.language.tokenizer_test import byte_level

pytest.importorskip("gguf", reason="gguf is not installed: pip install -e '.[language]'")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")

pytestmark = needs_linux


def head(count, content=b""):
    """Returns a GGUF file that states how many 8-bit integers its only array has."""
    key = b"tokenizer.ggml.tokens"
    field = struct.pack("<Q", len(key)) + key + struct.pack("<IIQ", 9, 0, count)
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + field + content


def test_an_array_that_ends_with_its_file(tmp_path):
    """Fails if numbers beyond the end of the file are read as empty: the reader would not end."""
    path = tmp_path / "a.gguf"
    path.write_bytes(head(2**60))
    with (
        little(),
        pytest.raises(UserError, match=r"a\.gguf is not a complete .*its head is cut off"),
    ):
        load_tokenizer(path)


def test_an_array_of_very_many_numbers(tmp_path, monkeypatch):
    """Fails if each number becomes a Python object, of which 5 MB would take a gibibyte."""
    monkeypatch.setattr(ours, "MOST_VALUES", 100)
    path = tmp_path / "a.gguf"
    path.write_bytes(head(200, bytes(200)))
    with pytest.raises(UserError, match="its head has more than 100 values"):
        load_tokenizer(path)


# The reference model -> what a field of its config.json becomes, and what the error says.
CONFIGS = {
    "layers": ("llama", {"num_hidden_layers": 2**31 - 1}, "states 2147483647 layers"),
    "layers that are not there": (
        "llama",
        {"num_hidden_layers": 4_000},
        "states 4,000 layers, but",
    ),
    "local layers": (
        "gemma3",
        {"num_hidden_layers": 10**9, "layer_types": None},
        "states 1000000000",
    ),
    "elements of a head": (
        "llama",
        {"head_dim": 2**31 - 1},
        "states 2147483647 elements of a head",
    ),
    "a head of text": ("llama", {"head_dim": "x"}, "states 'x' elements of a head"),
    "a pattern of 0": (
        "gemma3",
        {"sliding_window_pattern": 0, "layer_types": None},
        "cannot be read .*modulo",
    ),
    "a scaling without its factor": (
        "llama",
        {"rope_parameters": {"rope_type": "linear"}},
        "cannot be read .*factor",
    ),
}


@pytest.mark.parametrize("how", CONFIGS)
def test_a_config_that_cannot_be_right(tmp_path, how):
    """Fails if something is made for each layer or element before their numbers are checked."""
    family, fields, says = CONFIGS[how]
    shutil.copytree(reference.HERE / family, tmp_path, dirs_exist_ok=True)
    data = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**data, **fields}))
    with little(), pytest.raises(UserError, match=says) as caught:
        load_huggingface(tmp_path)
    assert "\n" not in str(caught.value)


# The normalizer is what the package's own code in Rust panics at.
TOKENIZERS = {
    "no JSON": b"x",
    "nested": b"[" * 9_000,
    "a panic": json.dumps(
        {
            "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
            "model": {"type": "BPE", "vocab": {}, "merges": []},
        }
    ).encode(),
}


@pytest.mark.parametrize("how", TOKENIZERS)
def test_a_damaged_tokenizer(tmp_path, how):
    """Fails if a panic of the library ends the program."""
    (tmp_path / "tokenizer.json").write_bytes(TOKENIZERS[how])
    with little(), pytest.raises(UserError, match=r"tokenizer\.json cannot be read") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_token_that_is_no_text(tmp_path):
    """Fails if only the tokenizer itself is read with care, and not what is looked up in it."""
    model = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "\ud800"}))
    with pytest.raises(UserError, match=r"tokenizer\.json cannot be read .*surrogates"):
        load_tokenizer(tmp_path)


def test_a_large_tokenizer_is_not_read(monkeypatch):
    monkeypatch.setattr(coding, "MOST_TOKENIZER", 100)
    with pytest.raises(UserError, match=r"the coding in pieces cannot be read .its 200 bytes"):
        coding.Pieces("x" * 200).ids("a")


def test_merges_of_tokens_that_are_not_there(tmp_path):
    """Fails if the library's own exception, which is of no narrower class, is raised."""
    path = byte_level(tmp_path / "a.gguf", "smollm")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"ab", b"zz", 1))  # the token comes before the merges
    with pytest.raises(UserError, match=r"a\.gguf cannot be read .*out of vocabulary"):
        load_tokenizer(path)
