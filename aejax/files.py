"""How a run's folder is written: whole files or none, one writer at a time, disk errors by name.

write_json(folder / "result.json", {"elbo": -90.1})     # either the old file or the new one
with writing(folder):                                    # OSError -> one sentence for the user
    ...
lock = lock_folder(folder)                               # until unlock(lock), or this process dies
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from aejax.errors import UserError


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Turns an OSError of the block (a full disk, an unwritable folder) into a UserError.

    Args:
      path: the file or folder that the block writes; the error names it.
    """
    try:
        yield
    except OSError as error:
        what = error.strerror or str(error)
        raise UserError(
            f"cannot write {path}: {what}; make room or choose a folder that can be written, then "
            "start the same command again"
        ) from error


def sync(path: pathlib.Path) -> None:
    """Waits until a file or a folder's entries are on the disk, so that a power cut keeps them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A file to write to that takes the place of `path` when it is whole, by one rename.

    Raises:
      OSError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    neighbour = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(neighbour, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(neighbour, path)
    finally:
        neighbour.unlink(missing_ok=True)
    sync(path.parent)


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file whole or not at all.

    Raises:
      UserError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    with writing(path), replacing(path) as file:
        file.write(content)


def plain(data: Any) -> Any:
    """Data as JSON has it: arrays as lists, paths as strings, NaN (which JSON lacks) as "NaN"."""
    if isinstance(data, Mapping):
        return {str(name): plain(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return "NaN" if math.isnan(data) else "Infinity" if data > 0 else "-Infinity"
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if isinstance(data, os.PathLike):
        return os.fspath(data)
    if hasattr(data, "tolist"):
        return plain(data.tolist())
    raise UserError(f"{data!r} of type {type(data).__name__} cannot be written as JSON")


def write_json(path: pathlib.Path, data: Any) -> None:
    """Writes `plain(data)` as indented JSON, whole or not at all."""
    text = json.dumps(plain(data), indent=2, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: pathlib.Path, whose: str = "run") -> Any:
    """Reads a JSON file that aejax wrote.

    Args:
      path: of the file.
      whose: what the file's folder should be, for the error where there is no such file.

    Raises:
      UserError: the file is missing, unreadable, no JSON, or of lists in lists a thousand deep.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path.parent} is no {whose}: it has no {path.name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it or remove it") from error


def file_sha256(path: pathlib.Path) -> str:
    """The sha256 of a file's bytes, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lock_folder(folder: pathlib.Path) -> int:
    """Takes the folder for this process alone (flock: the kernel lets go when the process dies).

    Returns:
      A descriptor for `unlock`.

    Raises:
      UserError: another process writes this folder.
    """
    with writing(folder):
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise UserError(
            f"another process writes {folder}; wait for it to end or choose another folder"
        ) from error
    return descriptor


def unlock(descriptor: int) -> None:
    """Lets go of a folder taken by `lock_folder`."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
