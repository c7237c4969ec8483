"""Writing files safely: atomic replacement, one writer per folder, and readable disk errors.

write_bytes(folder / "page.html", content)             # a crash leaves the old or the new file
with writing(folder):                                  # an OSError becomes a UserError
    ...
figures = subfolder(folder, "figures")                 # a folder of this one, never a link
lock = lock_folder(folder)                             # held until unlock(lock) or process exit
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import re
from collections.abc import Iterator
from typing import BinaryIO

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

    The temporary files that killed processes left behind when they replaced `path` are removed.

    Raises:
      OSError: if the disk is full or the folder cannot be written; the old file is not changed.
    """
    remove_leftovers(path.parent, path.name)
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


def remove_leftovers(folder: pathlib.Path, name: str | None = None) -> None:
    """Removes the temporary files that processes left behind in a folder when they were killed.

    Args:
      folder: the folder.
      name: the name of the file that they were to replace; None: of any file.

    Raises:
      OSError: if the folder cannot be written.
    """
    target = ".+" if name is None else re.escape(name)
    named = re.compile(rf"\.{target}\.([1-9]\d{{0,8}})\.tmp")
    for neighbour in folder.iterdir():
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


def subfolder(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the path of a folder's subfolder, which is created if it does not exist.

    Raises:
      UserError: if it cannot be created, or if a link or a file has its name: what is written to
        the folder would land elsewhere.
    """
    path = folder / name
    with writing(folder):
        if path.is_symlink():
            raise UserError(f"{path} is a link to another folder: replace it by a folder")
        path.mkdir(parents=True, exist_ok=True)
    return path


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
