"""The King James Bible: 1,189 chapters of 66 books, one verse per line.

Source: the Authorized Version, public domain; Debian's packages bible-kjv and bible-kjv-text. Their
data file has its own compressed format, so the program `bible` must first write it as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from aejax.data.text.corpus import Document
from aejax.data.text.source import Grouped, Source, find, read_lines
from aejax.errors import UserError

FILE = "kjv.txt"
HOW = (
    "write it with `bible -l400 gen1:1-rev22:21 > kjv.txt`, the program of Debian's packages "
    "bible-kjv and bible-kjv-text"
)
BOOKS, VERSES = 66, 31_102
HEADING = re.compile(r"(?P<book>\S.*?) (?P<chapter>[0-9]+)")
VERSE = re.compile(r" +(?P<verse>[0-9]+) (?P<text>.*)")


def source(manual_dir: Path | None) -> Source:
    """Returns the Source of the text that the program `bible` writes, with lines of any length.

    Args:
      manual_dir: the folder that holds kjv.txt.

    Returns:
      A source with one document per chapter and one verse per line; the label is the book.

    Raises:
      UserError: if the file is missing; reading the documents also raises it if the file does not
        hold the complete text.
    """
    (file,) = find(manual_dir, [FILE], HOW)
    return Source(
        name="bible",
        root=file.parent,
        files=(file,),
        documents=lambda: _documents(file),
        about="The King James Bible by chapters, with the book as label.",
        sha256="49f2fc63de14262d914971db1ff9a1eec142aa8893713900d1362126d2616555",
    )


def _documents(path: Path) -> Iterator[Grouped]:
    book, chapter, verses = "", 0, []
    books, total = set(), 0
    for offset, line in read_lines(path):
        heading, verse = HEADING.fullmatch(line), VERSE.fullmatch(line)
        if heading:
            if verses:
                yield _chapter(book, chapter, verses)
            following = heading["book"] == book
            if int(heading["chapter"]) != (chapter + 1 if following else 1):
                raise _damaged(path, offset, line)
            book, chapter, verses = heading["book"], int(heading["chapter"]), []
            books.add(book)
        elif verse and book and int(verse["verse"]) == len(verses) + 1:
            verses.append(verse["text"])
            total += 1
        elif line.strip() and verses and not verse:
            verses[-1] += " " + line.strip()  # a long verse continues on the next line
        elif line.strip():
            raise _damaged(path, offset, line)
    if (len(books), total) != (BOOKS, VERSES):
        raise UserError(
            f"{path} holds {total:,} verses of {len(books)} books, but the Bible has {VERSES:,} "
            f"of {BOOKS}: {HOW}"
        )
    yield _chapter(book, chapter, verses)


def _chapter(book: str, chapter: int, verses: list[str]) -> Grouped:
    # The program breaks lines at one or two blanks; every run of white space becomes one blank, so
    # that the text does not depend on the line length.
    text = "\n".join(" ".join(verse.split()) for verse in verses)
    return Document(f"{book} {chapter}", text, book), ()


def _damaged(path: Path, offset: int, line: str) -> UserError:
    return UserError(
        f"{path} is not the text of the Bible from byte {offset} on ({line.strip()[:40]!r}): {HOW}"
    )
