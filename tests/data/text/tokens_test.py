"""Tests how texts become token ids and texts again, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

import aejax as ae
from aejax.data.text import coding
from aejax.runs.model_json import from_json, to_json

TEXTS = ["A small dog, brown.", "Über den Wolken", "a dog of the dog's kind"]


@pytest.mark.parametrize("kind", ["bytes", "words", "pieces"])
def test_texts_come_back_and_a_coding_is_rebuilt_from_json(kind):
    """Fails if an id is shifted, or new words or pieces change those of train."""
    own = coding.learned(kind, TEXTS, 300)
    rows = coding.encode(own, TEXTS, 64)
    assert rows.max() < own.size
    back = [text.strip() for text in coding.decode(own, rows)]
    assert back == ([text.lower() for text in TEXTS] if kind == "words" else TEXTS)
    again = from_json(json.loads(json.dumps(to_json(own))))
    assert again == own
    assert hash(again) == hash(own)
    np.testing.assert_array_equal(coding.encode(again, TEXTS, 64), rows)
    longer = coding.encode(own, TEXTS, 80)
    np.testing.assert_array_equal(longer[:, :64], rows)
    assert not longer[:, 64:].any()


def test_words_that_are_rare_are_unknown():
    own = coding.learned("words", ["b b a c c c"], 5)
    assert own.words == ("c", "b")
    assert coding.decode(own, coding.encode(own, ["c a b"], 8)) == ["c <unk> b"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    words = ["red", "green", "blue", "small", "large", "round", "flat", "old", "new"]
    random = np.random.default_rng(0)
    lines = [
        {
            "text": " ".join(random.choice(words, 4 + i % 4)) + f" {i}",
            "label": "odd" if i % 2 else "even",
        }
        for i in range(60)
    ]
    path = folder / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return ae.data.texts(path, data_dir=folder / "data")


def test_a_corpus_becomes_splits_that_prepare_new_texts_alike(corpus, capsys):
    """Fails if the vocabulary has words of test, or labels are those of other texts."""
    train, _validation, test = ae.data.tokens(corpus, "words", length=8)
    coder = train.form.texts
    assert set(coder.coding.words) == {w for d in corpus.train for w in d.text.split()}
    kept = [d for d in corpus.test if len(d.text.split()) < 8]
    assert coding.decode(coder.coding, test.arrays["x"])[0].split()[:3] == kept[0].text.split()[:3]
    assert [test.classes[i] for i in test.labels] == [d.label for d in kept]
    assert train.facts["left_out_as_too_long"] > 0
    assert train.facts["texts"] == len(corpus.train)
    batch = next(train.batches(4))
    assert batch.x.dtype == np.int32
    text = coding.decode(coder.coding, train.arrays["x"])[0]
    again = ae.data.rows([text], like=train)
    np.testing.assert_array_equal(again.arrays["x"], train.arrays["x"][:1])
    cut, _, _ = ae.data.tokens(corpus, "words", length=5, long="cut")
    assert "texts of mine/train are cut to 4 tokens" in capsys.readouterr().err
    assert (cut.arrays["x"] == 1).sum(axis=1).tolist() == [1] * len(cut)
    with pytest.raises(ae.UserError, match="has room for 4 and the end"):
        ae.data.tokens(corpus, "words", length=5, long="refuse")
    for new, words in (
        ([""], "text 0 is empty"),
        (["red", " "], "text 1 is empty"),
        (["zebra quagga"], "has no known word"),
        ("red green", "not a list of strings|are not a list"),
        ([3], "are not a list of strings"),
    ):
        with pytest.raises(ae.UserError, match=words):
            ae.data.rows(new, like=train)


def test_wrong_corpora_and_codings_are_refused(tmp_path, corpus):
    path = tmp_path / "one.jsonl"
    path.write_text('{"text": "one text"}')
    with pytest.raises(ae.UserError, match="has 1 examples, too few"):
        ae.data.texts(path, data_dir=tmp_path)
    path = tmp_path / "some.jsonl"
    path.write_text('{"text": "one", "label": "a"}\n{"text": "two"}')
    with pytest.raises(ae.UserError, match="has no label while"):
        ae.data.texts(path, data_dir=tmp_path)
    for arguments, words in (
        ({"coding": "letters"}, "give 'bytes', 'words' or 'pieces'"),
        ({"coding": "words", "size": 3}, "has 3 ids: give 4 or more"),
        ({"length": 2}, "length is 2: give 3 or more"),
        ({"long": "drop"}, "give 'cut', 'refuse' or 'omit'"),
        ({"length": 3}, "has no text of fewer than 3 tokens"),
    ):
        with pytest.raises(ae.UserError, match=words):
            ae.data.tokens(corpus, **arguments)
