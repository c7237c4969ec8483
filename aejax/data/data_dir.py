"""The folder that data sets are prepared in: whole or not at all, by one process at a time.

with alone(data_dir) as workshop:       # a folder inside data_dir that is gone afterwards
    ...                                 # build inside it, then rename the whole into place
newest(data_dir, "mnist", "aejax.npz")  # that file of the newest version, or None
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from aejax.errors import UserError
from aejax.optional import needs


def default_data_dir() -> Path:
    """The folder that tensorflow-datasets prepares into, found without importing it."""
    return Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


def newest(data_dir: Path, name: str, file: str) -> Path | None:
    """The given file of the newest version of a data set in data_dir, or None."""

    def version(path: Path) -> tuple[int, ...]:
        return tuple(int(part) if part.isdigit() else -1 for part in path.parent.name.split("."))

    return max((data_dir / name).glob(f"[0-9]*/{file}"), key=version, default=None)


@contextlib.contextmanager
def alone(data_dir: Path, instead: str = "give another folder by --data-dir") -> Iterator[Path]:
    """A folder to work in, inside data_dir, that is gone afterwards; one process at a time.

    Args:
      data_dir: made where it does not exist.
      instead: what the user should do where it cannot be written.

    Raises:
      UserError: data_dir cannot be written.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        handle = os.open(data_dir, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            # What a killed process left behind: nobody else is at work while we hold the lock.
            for stale in data_dir.glob(".preparing-*"):
                shutil.rmtree(stale)
            with tempfile.TemporaryDirectory(prefix=".preparing-", dir=data_dir) as workshop:
                yield Path(workshop)
        finally:
            os.close(handle)
    except OSError as error:
        raise UserError(f"{data_dir} cannot be written ({error}): {instead}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps tfds' notes and bars off the terminal; its errors still come as exceptions."""
    tfds = needs("tensorflow_datasets", "preparing a data set")
    from absl import logging

    level = logging.get_verbosity()
    tfds.disable_progress_bar()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(level)
        tfds.enable_progress_bar()
