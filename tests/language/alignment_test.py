"""Tests of the words of tokens, with a tokenizer that splits words and spaces like GPT-2's."""

import numpy as np
import pytest

from aejax.language.alignment import align
from aejax.language.tokenizer import Tokenizer

tokenizers = pytest.importorskip(
    "tokenizers", reason="tokenizers is not installed: pip install -e '.[language]'"
)


@pytest.fixture(scope="module")
def tokenizer():
    """Makes a byte-level tokenizer whose only merges make " un" and "do"."""
    space = "Ġ"
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {c: i for i, c in enumerate([*letters, f"{space}u", f"{space}un", "do"])}
    merges = [(space, "u"), (f"{space}u", "n"), ("d", "o")]
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    return Tokenizer(inner, None, ())


def test_tokens_belong_to_the_words_they_end_in(tokenizer):
    """Fails if a leading space belongs to the word before, or places run across lines."""
    found = align(tokenizer, "a undo.\n\nb  a")
    texts = [tokenizer.token(t) for t in found.tokens]
    assert texts == ["a", " un", "do", ".", "\n", "\n", "b", " ", " ", "a"]
    assert found.word.tolist() == [0, 1, 1, 1, -1, -1, 2, -1, -1, 3]
    assert found.last.tolist() == [True, False, False, True, False, False, True, False, False, True]
    assert found.place.tolist() == [0, 1, 1, 1, -1, -1, 0, -1, -1, 1]
    np.testing.assert_array_equal(found.tokens, tokenizer.encode("a undo.\n\nb  a"))


def test_a_text_may_have_no_word(tokenizer):
    assert align(tokenizer, "").tokens.shape == (0,)
    assert align(tokenizer, " \n").word.tolist() == [-1, -1]
