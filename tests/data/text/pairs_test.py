"""Tests prompts and answers: what is read, how it is divided, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

import aejax as ae
from aejax.data.text.coding import decode
from aejax.data.text.pairs import prompts_of


def written(path, pairs):
    path.write_text("\n".join(json.dumps({"prompt": p, "answer": a}) for p, a in pairs))
    return path


def test_all_answers_to_a_prompt_are_in_one_split(tmp_path):
    """Fails if a row is given the prompt of another one, or equal answers are divided."""
    pairs = [(f"word {i}", f"red n{i} n{k}") for i in range(30) for k in range(3)]
    pairs += [("other", "the same"), ("another", "the same"), ("long", "a " * 30)]
    path = written(tmp_path / "mine.jsonl", pairs)
    splits = ae.data.pairs(path, coding="words", size=200, length=6)
    seen: list[set] = []
    for split in splits:
        answers = decode(split.form.texts.coding, split.arrays["x"])
        found = list(zip(prompts_of(split), answers, strict=True))
        own = [(p, a) for p, a in found if "<unk>" not in a]
        assert set(own) <= set(pairs)
        seen.append({p for p, _ in found} | {a for _, a in own})
        batch = next(split.batches(2))
        assert batch.context.shape == (min(2, len(split)), 32)
        assert np.issubdtype(batch.context.dtype, np.integer)
    assert len(seen[0] | seen[1] | seen[2]) == sum(map(len, seen))
    assert sum(len(split) for split in splits) >= 80  # the long answer is left out
    again = ae.data.pairs(path, coding="words", size=200, length=6)
    assert [split.fingerprint for split in again] == [split.fingerprint for split in splits]


def test_wrong_files_are_refused(tmp_path):
    path = tmp_path / "mine.jsonl"
    for content, words in (
        ('{"prompt": "a"}', "line 1 of .* lacks a prompt or an answer"),
        ('{"prompt": "a", "answer": " "}', "lacks a prompt or an answer"),
        ("[1]", "lacks a prompt or an answer"),
        ("{", "line 1 of .* is not JSON"),
        ('{"prompt": "a", "answer": "b c"}', "too few for three splits"),
    ):
        path.write_text(content)
        with pytest.raises(ae.UserError, match=words):
            ae.data.pairs(path)
    with pytest.raises(ae.UserError, match="there are no prompts and answers 'brown'"):
        ae.data.pairs("brown")
