"""A user's folder of files, whose subfolders, if there are any, are the classes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from aejax.errors import UserError


def paths_in(folder: Path, suffixes: Collection[str], what: str) -> list[Path]:
    """Returns the sorted paths of all files with these suffixes, in a folder or its subfolders.

    Hidden files are left out.

    Args:
      folder: the folder.
      suffixes: the ends of the files' names, in lower case, such as ".png".
      what: the kind of the files in the plural, for error messages, such as "pictures".

    Raises:
      UserError: if there is no such folder, it holds no such file, or there are such files both in
        the folder and in subfolders.
    """
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}: give the name of a data set, or a folder of {what}"
        )
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes and not path.name.startswith(".")
    )
    if not found:
        raise UserError(f"{folder} holds no {what}: put files in it ({' '.join(sorted(suffixes))})")
    direct = [path for path in found if path.parent == folder]
    if direct and len(direct) < len(found):
        raise UserError(
            f"{folder} holds both {what}, such as {direct[0].name}, and subfolders with {what}: "
            f"subfolders are classes, so move either all {what} into subfolders or none"
        )
    return found


def classes_of(folder: Path, paths: Sequence[Path]) -> tuple[tuple[str, ...], np.ndarray | None]:
    """Returns the sorted names of the subfolders, the classes, and the class of each path, i32[N].

    It returns () and None if the files are in the folder itself.
    """
    if all(path.parent == folder for path in paths):
        return (), None
    of = [path.relative_to(folder).parts[0] for path in paths]
    classes = tuple(sorted(set(of)))
    return classes, np.asarray([classes.index(name) for name in of], np.int32)
