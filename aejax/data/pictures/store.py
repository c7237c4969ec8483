"""A prepared data set in one .npz beside its array_record: read with numpy alone, hash checked."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aejax.data.reading import Reader, reopened
from aejax.data.split import fingerprint
from aejax.errors import UserError

FILE = "aejax.npz"


class Prepared(NamedTuple):
    """A data set as it came: its own splits, not yet divided into three."""

    name: str
    columns: dict[str, dict[str, np.ndarray]]  # split -> image u8[N, H, W, C], label i32[N]
    scale: float  # the stored value that means one
    classes: tuple[str, ...]  # names of the labels
    origin: str  # where the files came from and whether that was verified
    # Where it does not fit memory: all examples one by one, and columns that hold `row` i32[N],
    # their numbers there, instead of `image`.
    reader: Reader | None = None
    content: str | None = None  # sha256 over what the reader gives


def save(path: Path, prepared: Prepared) -> None:
    """Writes a data set to `path` for `load`; the caller renames its folder into place."""
    arrays = _flat(prepared.columns)
    about = {
        "name": prepared.name,
        "scale": prepared.scale,
        "classes": list(prepared.classes),
        "origin": prepared.origin,
        "sha256": fingerprint(arrays),
        "content": prepared.content,
    }
    # Renamed when whole, since a data set that tfds prepared is in its place already.
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            arrays["about"] = np.array(json.dumps(about))
            np.savez(file, allow_pickle=False, **arrays)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path) -> Prepared:
    """Reads what `save` wrote.

    Args:
      path: of the .npz.

    Returns:
      The data set.

    Raises:
      UserError: the file is damaged: it cannot be read or its content's hash differs.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, Any] = {key: file[key] for key in file.files}
        about = json.loads(str(arrays.pop("about")))
        whole = fingerprint(arrays) == about["sha256"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is damaged ({error}): delete its folder and start again"
        ) from error
    if not whole:
        raise UserError(f"{path} is damaged (its sha256 differs): delete its folder, start again")
    columns: dict[str, dict[str, np.ndarray]] = {}
    for key, array in arrays.items():
        split, column = key.split("/")
        columns.setdefault(split, {})[column] = array
    large = about["content"] is not None
    reader = reopened(path.parent, list(columns)) if large else None
    return Prepared(
        name=about["name"],
        columns=columns,
        scale=about["scale"],
        classes=tuple(about["classes"]),
        origin=about["origin"],
        reader=reader,
        content=about["content"],
    )


def _flat(columns: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {
        f"{split}/{name}": array for split, part in columns.items() for name, array in part.items()
    }
