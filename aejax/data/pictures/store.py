"""A prepared data set in one .npz beside its array_record: read with numpy alone, hash checked."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from aejax.data import npz
from aejax.data.reading import Reader, reopened

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
    about = {
        "name": prepared.name,
        "scale": prepared.scale,
        "classes": prepared.classes,
        "origin": prepared.origin,
        "content": prepared.content,
    }
    npz.save(path, _flat(prepared.columns), about)


def load(path: Path) -> Prepared:
    """Reads what `save` wrote.

    Args:
      path: of the .npz.

    Returns:
      The data set.

    Raises:
      UserError: the file is damaged: it cannot be read or its content's hash differs.
    """
    arrays, about = npz.load(path)
    columns: dict[str, dict[str, np.ndarray]] = {}
    for key, array in arrays.items():
        split, column = key.split("/")
        columns.setdefault(split, {})[column] = array
    large = about["content"] is not None
    return Prepared(
        name=about["name"],
        columns=columns,
        scale=about["scale"],
        classes=tuple(about["classes"]),
        origin=about["origin"],
        reader=reopened(path.parent, list(columns)) if large else None,
        content=about["content"],
    )


def _flat(columns: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {
        f"{split}/{name}": array for split, part in columns.items() for name, array in part.items()
    }
