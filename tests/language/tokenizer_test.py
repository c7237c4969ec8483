"""Tests of GGUF files' tokenizers, with vocabularies that are small enough to check by hand."""

import numpy as np
import pytest

from aejax.errors import UserError
from aejax.language.tokenizer import load_tokenizer

gguf = pytest.importorskip("gguf", reason="gguf is not installed: pip install -e '.[language]'")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")

NORMAL, CONTROL, USER, BYTE = 1, 3, 4, 6


def written(path, model, tokens, types, **more):
    """Writes a GGUF file with nothing but a tokenizer."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    if "merges" in more:
        writer.add_token_merges(more["merges"])
    if "scores" in more:
        writer.add_token_scores(more["scores"])
    if "pre" in more:
        writer.add_tokenizer_pre(more["pre"])
    if "prefix" in more:
        writer.add_add_space_prefix(more["prefix"])
    writer.add_tensor("a", np.ones((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def byte_level(path, pre):
    tokens = ["<s>", "</s>", "a", "b", "1", "2", "Ġ", "ab", "Ġa", "12"]
    types = [CONTROL] * 2 + [NORMAL] * 8
    merges = ["a b", "Ġ a", "1 2"]
    return written(path, "gpt2", tokens, types, merges=merges, pre=pre)


@pytest.mark.parametrize(
    ("pre", "wanted"), [("smollm", [4, 5]), ("gpt-2", [9]), ("qwen2", [4, 5]), ("llama-bpe", [9])]
)
def test_bytes_are_merged_within_the_pieces_of_the_rule(pre, wanted, tmp_path):
    """SmolLM2 and Qwen split digits from each other; GPT-2 and Llama 3 do not."""
    found = load_tokenizer(byte_level(tmp_path / "t.gguf", pre))
    assert found.encode("12") == wanted
    assert found.encode("ab a<s>b") == [7, 8, 0, 3]
    assert found.decode([7, 8, 0, 3]) == "ab ab"
    assert found.decode([7, 8, 0, 3], special=True) == "ab a<s>b"
    assert (found.bos, found.ends, found.size) == (0, (1,), 10)


def test_pieces_are_merged_by_their_scores(tmp_path):
    """In "abc" the pair bc has the better score. Fails if merges are ordered by token.

    Characters without a piece become bytes. Gemma's newline is defined by the user, but not
    special, so a decoded text keeps it.
    """
    pieces = ["<s>", "</s>", "<unk>", "a", "b", "c", "▁", "ab", "bc", "▁a", "<0xC3>", "<0xA9>"]
    pieces.append("\n")
    scores = [0, 0, 0, -9, -9, -9, -9, -3, -2, -1, 0, 0, 0]
    types = [CONTROL] * 2 + [2] + [NORMAL] * 7 + [BYTE] * 2 + [USER]
    how = {"scores": [float(s) for s in scores], "prefix": False}
    found = load_tokenizer(written(tmp_path / "t.gguf", "llama", pieces, types, **how))
    assert found.encode("abc") == [3, 8]
    assert found.encode("b abc") == [4, 9, 8]
    assert found.encode("é") == [10, 11]
    assert found.decode([0, 4, 9, 8, 10, 11]) == "b abcé"
    assert found.encode("a\nbc") == [3, 12, 8]
    assert found.decode([3, 12, 8]) == "a\nbc"


def test_an_unknown_tokenizer_is_refused(tmp_path):
    path = byte_level(tmp_path / "t.gguf", "tekken")
    with pytest.raises(UserError, match="by the rule 'tekken', which is not known here"):
        load_tokenizer(path)
    path = written(tmp_path / "b.gguf", "bert", ["a"], [NORMAL])
    with pytest.raises(UserError, match="is 'bert': this reader knows gpt2 and llama"):
        load_tokenizer(path)
    with pytest.raises(UserError, match=r"has no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer\.json cannot be read"):
        load_tokenizer(tmp_path)
