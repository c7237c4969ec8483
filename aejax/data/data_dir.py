"""The folder of prepared data sets, in which one process at a time prepares a new one.

with locked_workspace(data_dir) as workspace:  # a temporary folder inside data_dir
    ...                                        # build inside it, then rename the result into place
newest(data_dir, "mnist", "aejax.npz")         # the file's path in the newest version, or None
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from aejax.errors import UserError
from aejax.files import lock_folder, unlock
from aejax.optional import needs


def default_data_dir() -> Path:
    """Returns the folder that tensorflow-datasets uses by default, without importing it."""
    return Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


def check_trusted(path: str, prepared_only: bool) -> None:
    """Raises UserError for a path if only prepared data sets may be read."""
    if prepared_only:
        raise UserError(
            f"the data {path!r:.200} are a path, which is not followed, because it comes from the "
            "files of a run: if the run is your own, say so (--own)"
        )


def check_prepared(name: str, data_dir: Path, prepared_only: bool) -> None:
    """Raises UserError for a data set that data_dir lacks if only prepared ones may be read."""
    if prepared_only:
        raise UserError(
            f"{data_dir} does not hold the data set {name!r}, which is not prepared for the files "
            "of a run: give the folder that holds it (--data-dir), or, if the run is your own, say "
            "so (--own)"
        )


def newest(data_dir: Path, name: str, file: str) -> Path | None:
    """Returns the path of a file in the newest version of a data set in data_dir, or None."""

    def version(path: Path) -> tuple[int, ...]:
        return tuple(int(part) if part.isdigit() else -1 for part in path.parent.name.split("."))

    return max((data_dir / name).glob(f"[0-9]*/{file}"), key=version, default=None)


@contextlib.contextmanager
def locked_workspace(
    data_dir: Path, instead: str = "give another folder by --data-dir"
) -> Iterator[Path]:
    """Locks data_dir, waiting if necessary, and yields a temporary folder inside it.

    Args:
      data_dir: the folder to lock; it is created if it does not exist.
      instead: the advice in the error message if data_dir cannot be written.

    Raises:
      UserError: if data_dir cannot be written.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(data_dir, wait=True)
        try:
            # While this process holds the lock no other one prepares data, so any workspace that
            # exists here was left behind by a process that was killed.
            for stale in data_dir.glob(".preparing-*"):
                shutil.rmtree(stale)
            with tempfile.TemporaryDirectory(prefix=".preparing-", dir=data_dir) as workspace:
                yield Path(workspace)
        finally:
            unlock(lock)
    except OSError as error:
        raise UserError(f"{data_dir} cannot be written ({error}): {instead}") from error


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """Hides the messages and progress bars of tensorflow-datasets; errors are still raised."""
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
