"""Relates the tokens of a text to its words, so that labels of words become labels of tokens.

aligned = align(tokenizer, "The cat sat.\nIt slept.")
aligned.tokens            # i32[n], as tokenizer.encode returns them
aligned.word              # i32[n], the index in text.split() of the word that a token belongs to
aligned.last              # bool[n], whether the token is the last one of its word
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from aejax.language.tokenizer import Tokenizer


class Aligned(NamedTuple):
    """The n tokens of a text, and the words that they belong to."""

    tokens: np.ndarray  # i32[n]
    word: np.ndarray  # i32[n], an index into text.split(); -1 for a token of white space only
    last: np.ndarray  # bool[n], whether the token is the last one of its word
    # i32[n], the number of words in the token's line before its own word; -1 if it has no word.
    place: np.ndarray


def align(tokenizer: Tokenizer, text: str) -> Aligned:
    """Tokenises a text and finds the word of each token.

    A token belongs to the word of its last character, so " cat" belongs to "cat". The field `place`
    is the word's position in its line, which is its sentence if each line of a corpus has one.

    Args:
      tokenizer: the tokenizer of a model.
      text: the text.
    """
    encoding = tokenizer.inner.encode(text, add_special_tokens=False)
    ends = np.array([end for _, end in encoding.offsets], np.int64).reshape(-1)
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    # The index of the word that each character belongs to, with one more entry for empty tokens.
    owner = np.full(len(text) + 1, -1, np.int32)
    for i, (start, stop) in enumerate(spans):
        owner[start:stop] = i
    word = owner[ends - 1]
    following = np.append(word[1:], -1)
    first = np.zeros(len(spans), np.int32)  # the first word of each word's line
    line, begins = -1, 0
    breaks = np.cumsum([character == "\n" for character in text]) if text else np.zeros(0, int)
    for i, (start, _) in enumerate(spans):
        if breaks[start] != line:
            line, begins = breaks[start], i
        first[i] = begins
    there = word >= 0
    place = np.where(there, word - first[np.maximum(word, 0)], -1) if spans else word
    return Aligned(
        np.asarray(encoding.ids, np.int32),
        word,
        there & (following != word),
        place.astype(np.int32),
    )
