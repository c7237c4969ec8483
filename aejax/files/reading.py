"""Reading files safely: only regular files, with a size that is checked before anything is read.

with reading(path, "fetch it again"):         # whatever damage raises becomes one UserError
    content = read_bytes(path, most=2**20)    # refuses a FIFO, a device, and a larger file
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import stat
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from lzma import LZMAError
from typing import BinaryIO

from aejax.errors import UserError

# The exceptions that reading a damaged file may raise, in any format.
MALFORMED = (
    *(ValueError, TypeError, KeyError, IndexError, SyntaxError, ArithmeticError, AttributeError),
    *(EOFError, OSError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error),
    LZMAError,  # a damaged zip may declare this compression
    tokenize.TokenError,  # numpy tokenizes a header that it cannot parse
)


@contextlib.contextmanager
def reading(
    path: pathlib.Path, advice: str, missing: str | None = None, says: str = "cannot be read"
) -> Iterator[None]:
    """Turns any error of a damaged file inside the block into a UserError of one sentence.

    Args:
      path: the file that the block reads.
      advice: what to do, such as "fetch it again".
      missing: the sentence if there is no such file.
      says: what the message says of any other error.

    Raises:
      UserError: if the block raises it, or an exception of MALFORMED.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(missing or f"there is no file {path}: {advice}") from error
    except MALFORMED as error:
        raise UserError(f"{path} {says} ({reason(error)}): {advice}") from error


def reason(error: BaseException) -> str:
    """Returns an exception's message as one line of at most 160 printable ASCII characters."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    words = " ".join(text.split()) or type(error).__name__
    return ascii(words)[1:-1] if len(words) < 160 else ascii(words[:157])[1:-1] + "..."


def open_file(path: str | os.PathLike[str], within: pathlib.Path | None = None) -> BinaryIO:
    """Opens a regular file for reading.

    Args:
      path: the path of the file.
      within: the folder in which the file must lie after all links have been followed; None: links
        may lead anywhere.

    Raises:
      OSError: if the file is missing or cannot be opened.
      ValueError: if it lies outside `within`, or is a folder, a FIFO or a device. Opening a FIFO
        would wait for a writer, and a device may have no end.
    """
    if within is not None:
        folder, target = os.path.realpath(within), os.path.realpath(path)
        if not pathlib.Path(target).is_relative_to(folder):
            raise ValueError("it is a link out of its folder")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("it is not a regular file")
    return os.fdopen(descriptor, "rb")


def check_regular(path: str | os.PathLike[str], within: pathlib.Path | None = None) -> None:
    """Raises what `open_file` raises, before a library opens the file by its path."""
    open_file(path, within).close()


def read_bytes(
    path: str | os.PathLike[str], most: int, within: pathlib.Path | None = None
) -> bytes:
    """Reads a whole file, whose size is checked first.

    Args:
      path: the path of the file.
      most: the largest size of the file, in bytes.
      within: as in `open_file`.

    Raises:
      OSError, ValueError: as `open_file` raises, and ValueError if the file is larger.
    """
    with open_file(path, within) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"it has {size:,} bytes, but at most {most:,} are read")
        return file.read(size)


def lines(file: BinaryIO, most: int) -> Iterator[bytes]:
    """Yields the lines of a file with their ends.

    Args:
      file: the file, open for reading.
      most: the most bytes of a line. A file may have no end of a line at all, such as a file of
        zeros that takes no room on the disk.

    Raises:
      ValueError: if a line is longer.
    """
    while line := file.readline(most + 1):
        if len(line) > most:
            raise ValueError(f"it has a line of more than {most:,} bytes")
        yield line


def file_sha256(path: pathlib.Path, within: pathlib.Path | None = None) -> str:
    """Returns the sha256 of a regular file's bytes as hexadecimal digits."""
    with open_file(path, within) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
