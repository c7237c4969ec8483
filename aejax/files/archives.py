"""A reader of tar and zip archives that takes no more memory and time than their sizes explain.

    for name, content in members(path, lambda name: name.endswith(".wav")):
        ...

A few bytes of an archive may stand for gigabytes: of zeros that were compressed, of a sparse file,
or of a header. What an archive declares is therefore compared with its size before it is read.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pathlib
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from aejax.files.npz import INFLATED, SPREAD
from aejax.files.reading import open_file

LARGEST = 2**28  # bytes of the largest file in an archive
HEADERS = 2**16  # bytes of the longest header of a tar archive
MEMBERS = 2**12  # files in an archive, and one more for each of its BLOCK bytes
BLOCK = 64
_OPEN = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}


def members(
    path: pathlib.Path, wanted: Callable[[str], bool] = lambda name: True
) -> Iterator[tuple[str, bytes]]:
    """Yields the name and content of each regular file of an archive, in stored order.

    Args:
      path: a zip archive, or a tar archive that may be compressed by gzip, bzip2 or xz.
      wanted: says by a file's name whether to read it.

    Raises:
      FileNotFoundError: if there is no such archive.
      Exception: one of `aejax.files.MALFORMED` if it is damaged or no archive, or holds more than
        INFLATED + SPREAD times its size, a file above LARGEST, or very many files.
    """
    with open_file(path) as file:
        size = file.seek(0, os.SEEK_END)
        inner = _of_zip if zipfile.is_zipfile(file) else _of_tar
        file.seek(0)
        for count, (name, declared, read) in enumerate(inner(file, INFLATED + SPREAD * size)):
            if count > MEMBERS + size // BLOCK:
                raise ValueError(f"its {size:,} bytes hold more than {count:,} files")
            if declared > LARGEST:
                raise ValueError(f"{name!r:.60} has {declared:,} bytes, but {LARGEST:,} at most")
            if wanted(name):
                yield name, read()


_Member = tuple[str, int, Callable[[], bytes]]  # name, declared size, and its reader


def _of_zip(file: BinaryIO, most: int) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        declared = sum(entry.file_size for entry in entries)
        if declared > most:
            raise ValueError(f"its files have {declared:,} bytes, but {most:,} at most")
        for entry in entries:
            # The other ways have no limit to what one block of the archive becomes.
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{entry.filename!r:.60} is compressed in an unknown way")
            yield entry.filename, entry.file_size, lambda entry=entry: archive.read(entry)


def _of_tar(file: BinaryIO, most: int) -> Iterator[_Member]:
    start = file.read(2)
    file.seek(0)
    whole: Any = _OPEN[start](file) if start in _OPEN else file
    limited = _Limited(whole, most)
    try:
        with tarfile.open(fileobj=limited, mode="r:") as archive:  # pyright: ignore[reportArgumentType]
            before = -1
            while (member := archive.next()) is not None:
                # A negative size would lead back, and `archive` would begin anew.
                if member.offset <= before or member.size < 0:
                    raise ValueError(f"{member.name!r:.60} has a size that cannot be right")
                before, archive.members = member.offset, []  # or it would keep all of them
                if member.isreg() and not member.issparse():
                    limited.most_read = max(HEADERS, member.size)
                    yield member.name, member.size, lambda member=member: _content(archive, member)
                    limited.most_read = HEADERS
    except tarfile.TarError as error:
        raise ValueError(str(error)) from error


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    try:
        file = archive.extractfile(member)
        assert file is not None  # It is that of a regular file.
        return file.read()
    except tarfile.TarError as error:
        raise ValueError(f"it ends within {member.name!r:.60}") from error


class _Limited(io.RawIOBase):
    """A file that raises ValueError beyond `most` bytes, or for a read of more than `most_read`."""

    def __init__(self, inner: BinaryIO, most: int):
        self._inner, self._most, self.most_read = inner, most, HEADERS

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.most_read:
            raise ValueError(f"it has a header of {size:,} bytes")
        self._check(self._inner.tell() + size)
        return self._inner.read(size)

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET or position < 0:
            raise ValueError("it has a size that cannot be right")
        self._check(position)
        return self._inner.seek(position)

    def tell(self) -> int:
        return self._inner.tell()

    def _check(self, position: int) -> None:
        if position > self._most:
            raise ValueError(f"its files have more than {self._most:,} bytes")
