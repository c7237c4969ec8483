"""Tests of ae.data.texts: prepared once, divided by groups, read one by one, damage named."""

import json
import shutil

import numpy as np
import pytest

from aejax.data import texts
from aejax.data.text import prepare as preparing
from aejax.data.text.corpus import Document, digest
from aejax.data.text.store import BLOCK
from aejax.errors import UserError

N = 2 * BLOCK + 40  # more than two blocks


def lines(changed=None):
    """Makes N documents with three labels; every fourth one shares its group with the next."""
    found = [{"text": f"text {i} é\n", "label": "abc"[i % 3], "id": str(i)} for i in range(N)]
    for i in range(0, N - 1, 4):
        found[i]["group"] = found[i + 1]["group"] = i
    found[7]["text"] = found[90]["text"]  # equal texts form one group
    for number, fields in (changed or {}).items():
        found[number] |= fields
    return "\n".join(map(json.dumps, found)) + "\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Returns the file of JSON lines, and a data folder where it is prepared."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "own.jsonl").write_text(lines())
    texts(folder / "own.jsonl", data_dir=folder / "data")
    return folder


def opened(place, **options):
    return texts(place / "own.jsonl", data_dir=place / "data", **options)


def numbers(corpus):
    return [int(document.id) for document in corpus]


def used(parts):
    return [number for corpus in parts[:3] for number in numbers(corpus)]


def test_every_document_once_with_its_label(place):
    """Fails if labels and documents have different orders, or if the end of a block is lost."""
    parts = opened(place)
    assert parts.shifted is None
    assert sorted(used(parts)) == list(range(N))
    for corpus, size in zip(parts[:3], (0.8 * N, 0.1 * N, 0.1 * N), strict=True):
        assert abs(len(corpus) - size) <= 2
        assert len(list(corpus)) == len(corpus)
        for number, document, label in zip(numbers(corpus), corpus, corpus.labels, strict=True):
            text = 90 if number == 7 else number
            expected = Document(str(number), f"text {text} é\n", "abc"[number % 3])
            assert document == expected
            assert corpus.classes[label] == document.label
        assert corpus[len(corpus) - 1] == corpus[-1] == list(corpus)[-1]
        with pytest.raises(IndexError):
            corpus[len(corpus)]
    assert parts.train.name == "own/train"
    assert parts.train.provenance()["documents"] == len(parts.train)


def test_groups_and_equal_texts_stay_together(place):
    """Fails if groups are ignored or equal texts are not joined, for several seeds."""
    for seed in range(3):
        parts = opened(place, seed=seed)[:3]
        where = {i: part for part, corpus in enumerate(parts) for i in numbers(corpus)}
        assert where[7] == where[90]
        assert all(where[i] == where[i + 1] for i in range(0, N - 1, 4))


def test_one_seed_one_split(place):
    """Fails if the split depends on anything but content and seed."""
    first, again, other = opened(place), opened(place), opened(place, seed=1)
    assert [c.fingerprint for c in first[:3]] == [c.fingerprint for c in again[:3]]
    assert first.train.fingerprint != other.train.fingerprint
    assert numbers(first.test) == numbers(again.test) != numbers(other.test)
    assert digest(first.test) == digest(again.test)
    assert len({c.fingerprint for c in first[:3]}) == 3
    assert len(opened(place, validation=50, test=0.2).validation) in range(49, 52)


def test_a_held_out_label_is_a_shift(place):
    """Fails if a held-out document, or one of its group, is in train, validation or test."""
    parts = opened(place, held_out=("b",))
    assert numbers(parts.shifted) == list(range(1, N, 3))
    assert parts.shifted.name == "own/shifted"
    kept = set(used(parts))
    out = {i for i in range(N) if i % 3 == 1}
    # Documents 7 and 90 have equal texts. 7 has label "b", so 90 is neither shifted nor kept.
    tied = {i for i in range(0, N - 1, 4) if {i, i + 1} & out}
    assert kept == set(range(N)) - out - tied - {i + 1 for i in tied} - {90}
    assert all(document.label != "b" for corpus in parts[:3] for document in corpus)
    assert texts(place / "own.jsonl", data_dir=place / "data", held_out="b").shifted is not None
    with pytest.raises(UserError, match=r"own has no label 'z' to hold out: it has a, b, c"):
        opened(place, held_out=("z",))
    with pytest.raises(UserError, match=r"own has 0 examples, too few"):
        opened(place, held_out=("a", "b", "c"))


def test_prepared_once_until_the_files_change(place, monkeypatch):
    """Fails if a changed file gives its old documents, or if an equal one is prepared again."""
    copy = place / "copy"
    copy.mkdir()
    (copy / "own.jsonl").write_text(lines({3: {"text": "changed"}}))
    found = texts(copy, data_dir=place / "data")
    assert "changed" in {document.text for corpus in found[:3] for document in corpus}
    assert found.train.origin == "JSON lines"
    monkeypatch.setattr(preparing, "survey", None)
    texts(copy, data_dir=place / "data")
    opened(place)


def test_nothing_half_written(tmp_path):
    """Fails if the folder is made before every document was read."""
    (tmp_path / "own.jsonl").write_text(lines() + "{")
    with pytest.raises(UserError, match=rf"line {N + 1} of .*own\.jsonl is not JSON"):
        texts(tmp_path / "own.jsonl", data_dir=tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []
    (tmp_path / "own.jsonl").write_text("\n")
    with pytest.raises(UserError, match=r"own holds no documents, .*own\.jsonl is empty"):
        texts(tmp_path / "own.jsonl", data_dir=tmp_path / "data")
    (tmp_path / "own.jsonl").write_text(lines())
    with pytest.raises(UserError, match=r"own\.jsonl/data cannot be written .*--data-dir"):
        texts(tmp_path / "own.jsonl", data_dir=tmp_path / "own.jsonl" / "data")


def test_unknown_names_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="unknown corpus 'brwn': give one of brown, wordnet, bible"):
        texts("brwn", data_dir=tmp_path)
    with pytest.raises(UserError, match="neither a folder nor a file"):
        texts("./brwn", data_dir=tmp_path)
    with pytest.raises(UserError, match=r"holds ca01: give it by --manual-dir"):
        texts("brown", data_dir=tmp_path)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.txt").write_text("a")
    with pytest.raises(UserError, match="one has 1 examples, too few"):
        texts(tmp_path / "one", data_dir=tmp_path)
    for i in range(20):
        (tmp_path / "one" / f"{i}.txt").write_text(f"a {i}")
    with pytest.raises(UserError, match="one has no labels, so none can be held out"):
        texts("one", data_dir=tmp_path, held_out=("a",))


def records(folder):
    return next(folder.glob("*/*array_record*"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: records(folder).unlink(),
        lambda folder: records(folder).write_bytes(records(folder).read_bytes()[:-700]),
        lambda folder: records(folder).write_bytes(
            records(folder).read_bytes()[:9000] + bytes(4000) + records(folder).read_bytes()[13000:]
        ),
        lambda folder: next(folder.glob("*/aejax.npz")).write_bytes(b"PK\3\4"),
        lambda folder: next(folder.glob("*/dataset_info.json")).write_text("{"),
    ],
)
def test_damage_is_named(place, tmp_path, damage):
    """Fails if the own error of a reader is raised."""
    data = tmp_path / "data"
    shutil.copytree(place / "data", data)
    for folder in data.iterdir():
        damage(folder)
    damaged = r"texts_[0-9a-f]{16}/1\.0\.0(/aejax\.npz)? is damaged .*delete the folder"
    with pytest.raises(UserError, match=damaged):
        [list(corpus) for corpus in texts(place / "own.jsonl", data_dir=data)[:3]]


def test_a_named_corpus_is_prepared_from_the_manual_dir_once(tmp_path):
    """Fails if a second call needs the folder, or if unknown content is called verified."""
    from aejax.data.text import brown

    for i, name in enumerate(brown.FILES):
        (tmp_path / name).write_text(f"\tWord/nn {i}/cd\n")
    texts("brown", data_dir=tmp_path / "data", manual_dir=tmp_path)
    parts = texts("brown", data_dir=tmp_path / "data", held_out=("news", "humor"))
    assert len(parts.shifted) == 44 + 9
    assert parts.train.origin == "from --manual-dir, not the known content"
    assert parts.test[0].tags == ("nn", "cd")
    assert len(parts.train.classes) == 15
    np.testing.assert_array_equal(np.unique(parts.shifted.labels), [6, 10])
    assert [parts.train.classes[i] for i in (6, 10)] == ["humor", "news"]
