"""Writing files safely: atomic replacement, one writer per folder, and readable disk errors.

write_json(folder / "result.json", {"elbo": -90.1})   # a crash leaves the old or the new file
with writing(folder):                                  # an OSError becomes a UserError
    ...
lock = lock_folder(folder)                             # held until unlock(lock) or process exit
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from aejax.errors import UserError


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Turns an OSError in the `with` block, such as that of a full disk, into a UserError.

    Args:
      path: the file or folder that the block writes; the error message names it.
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
    """Waits until a file, or the list of entries of a folder, is stored permanently on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """Yields a temporary file that replaces `path`, by one rename, when the `with` block has ended.

    Raises:
      OSError: if the disk is full or the folder cannot be written; the old file is not changed.
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


def remove_leftovers(path: pathlib.Path) -> None:
    """Removes the temporary files of `path` that processes left behind when they were killed.

    Raises:
      UserError: if the folder cannot be written.
    """
    named = re.compile(rf"\.{re.escape(path.name)}\.([1-9]\d{{0,8}})\.tmp")
    with writing(path.parent):
        for neighbour in path.parent.iterdir():
            found = named.fullmatch(neighbour.name)
            if found is not None and not _alive(int(found[1])):
                neighbour.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it belongs to another user
        return True
    return True


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file completely or not at all.

    Raises:
      UserError: if the disk is full or the folder cannot be written; the old file is not changed.
    """
    with writing(path), replacing(path) as file:
        file.write(content)


def as_json(data: Any) -> Any:
    """Converts data to JSON's types: arrays to lists, paths to strings, NaN to the string "NaN".

    Raises:
      UserError: if a value has a type that JSON cannot hold.
    """
    if isinstance(data, Mapping):
        return {str(name): as_json(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [as_json(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return "NaN" if math.isnan(data) else "Infinity" if data > 0 else "-Infinity"
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if isinstance(data, os.PathLike):
        return os.fspath(data)
    if hasattr(data, "tolist"):
        return as_json(data.tolist())
    raise UserError(f"{data!r} of type {type(data).__name__} cannot be written as JSON")


def write_json(path: pathlib.Path, data: Any) -> None:
    """Writes `data` as indented JSON, completely or not at all; `as_json` converts it first."""
    text = json.dumps(as_json(data), indent=2, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: pathlib.Path, whose: str = "run") -> Any:
    """Reads a JSON file that aejax wrote.

    Args:
      path: the path of the file.
      whose: how error messages name a folder with such a file, such as "run".

    Raises:
      UserError: if the file is missing, cannot be read, is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(
            f"{path.parent} holds no {whose}, because it has no {path.name}: give another folder"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it or remove it") from error


def file_sha256(path: pathlib.Path) -> str:
    """Returns the sha256 of a file's bytes as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lock_folder(folder: pathlib.Path, wait: bool = False) -> int:
    """Locks a folder for this process; the operating system unlocks it when the process dies.

    Args:
      folder: an existing folder.
      wait: whether to wait until another process releases the folder, instead of raising.

    Returns:
      The file descriptor of the lock, to be passed to `unlock`.

    Raises:
      UserError: if another process holds the lock and `wait` is False, or the folder cannot be
        opened or locked.
    """
    with writing(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            os.close(descriptor)
            raise UserError(
                f"another process writes {folder}; wait for it to end or choose another folder"
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


def unlock(descriptor: int) -> None:
    """Releases a folder that `lock_folder` locked."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
