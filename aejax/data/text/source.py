"""The record of a corpus' files and how to read them, and functions that all readers share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from aejax.data.text.corpus import Document
from aejax.errors import UserError
from aejax.files import file_sha256, lines, open_file, read_bytes, reason

MOST_BYTES = 2**28  # the longest text, a whole file or a line of one
# A document and its group keys: documents that share a key all go to the same split.
Grouped: TypeAlias = tuple[Document, Sequence[str]]


class Source(NamedTuple):
    """The files of one corpus, and a function that reads its documents from them."""

    name: str  # the name of the corpus, such as "brown", or the name of the user's folder
    root: Path  # the folder that contains all files
    files: tuple[Path, ...]  # all files that are read, in order
    documents: Callable[[], Iterator[Grouped]]  # yields all documents; each call reads the files
    about: str  # a description of one sentence
    # The expected sha256 over the documents of the known package; None for a user's own texts.
    sha256: str | None = None

    def content(self) -> str:
        """Returns the sha256 over the corpus' name, and each file's bytes and path below `root`."""
        digest = hashlib.sha256(f"{self.name}\n".encode())
        for path in self.files:
            digest.update(f"{path.relative_to(self.root)} {file_digest(path)}\n".encode())
        return digest.hexdigest()


def file_digest(path: Path) -> str:
    """Returns the sha256 of a file.

    Raises:
      UserError: if the file cannot be read.
    """
    try:
        return file_sha256(path)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError | ValueError) -> UserError:
    """Returns the error for a file that exists but cannot be opened or read."""
    return UserError(f"{path} cannot be read ({reason(error)}): check its permissions")


def read_text(path: Path) -> str:
    """Reads a whole file as text and keeps its line ends.

    Raises:
      UserError: if the file cannot be read or is not UTF-8; it names the file and the byte offset.
    """
    try:
        content = read_bytes(path, MOST_BYTES)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return decoded(content, path)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the byte offset of each line of a file, and its text without the line end.

    Raises:
      UserError: if the file cannot be read or is not UTF-8.
    """
    offset = 0
    try:
        file = open_file(path)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    with file:
        try:
            for line in lines(file, MOST_BYTES):
                yield offset, decoded(line, path, offset).rstrip("\r\n")
                offset += len(line)
        except UserError:
            raise
        except (OSError, ValueError) as error:
            raise unreadable(path, error) from error


def decoded(content: bytes, path: Path, offset: int = 0) -> str:
    """Decodes UTF-8 and removes a byte order mark at the start of the file.

    Args:
      content: the bytes, which must not begin or end inside a character.
      path: the file that they come from, for the error message.
      offset: the position of the first byte in that file.

    Raises:
      UserError: if the bytes are not UTF-8.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8: byte {offset + error.start} is 0x{content[error.start]:02x} "
            f"({error.reason}); convert the file, for example by iconv -f latin1 -t utf-8"
        ) from error
    return text.removeprefix("\ufeff") if offset == 0 else text


def find(manual_dir: Path | None, names: Sequence[str], how: str) -> tuple[Path, ...]:
    """Finds the files of a corpus in a folder.

    Args:
      manual_dir: the folder, or None if the user gave none.
      names: the names of the files, all of which must exist.
      how: how to get the files, a clause for the error message, such as "run npm pack x".

    Returns:
      The paths of the files, in the order of their names.

    Raises:
      UserError: if no folder was given or a file is missing; the message names the first such file.
    """
    if manual_dir is None:
        raise UserError(
            f"no folder was given that holds {names[0]}: give it by --manual-dir; to get the file, "
            f"{how}"
        )
    for name in names:
        if not (manual_dir / name).is_file():
            raise UserError(f"{manual_dir / name} is missing: to get it, {how}")
    return tuple(manual_dir / name for name in names)
