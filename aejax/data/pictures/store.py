"""Writes and reads a prepared data set as one .npz file, which needs only numpy."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from aejax.data import npz
from aejax.data.npz import damaged
from aejax.data.reading import Reader, reopen
from aejax.files import json_fields

FILE = "aejax.npz"


# The checks of the fields of a data set's description.
_ABOUT = {
    "name": json_fields.text(),
    "scale": json_fields.positive,
    "classes": json_fields.list_of(json_fields.text()),
    "origin": json_fields.text(),
    "content": json_fields.optional(json_fields.sha256),
}


class Prepared(NamedTuple):
    """A data set with the splits of its publisher, before the division into three splits."""

    name: str
    # Name of a split -> name of a column -> its array: image u8[N, H, W, C] and label i32[N].
    columns: dict[str, dict[str, np.ndarray]]
    scale: float  # the stored value of a pixel that corresponds to 1.0
    classes: tuple[str, ...]  # the names of the labels
    origin: str  # where the files came from and whether their content was verified
    # A reader of all examples, if the data set does not fit in memory. Instead of `image`, the
    # columns then contain `row` i32[N], the indices of the examples in the reader.
    reader: Reader | None = None
    content: str | None = None  # the sha256 of all examples of the reader


def write_prepared(path: Path, prepared: Prepared) -> None:
    """Writes a data set to `path`, an .npz file that `read_prepared` can read."""
    about = {
        "name": prepared.name,
        "scale": prepared.scale,
        "classes": prepared.classes,
        "origin": prepared.origin,
        "content": prepared.content,
    }
    npz.save(path, _flat(prepared.columns), about)


def read_prepared(path: Path) -> Prepared:
    """Reads a data set that `write_prepared` wrote.

    Args:
      path: the path of the .npz file.

    Returns:
      The data set.

    Raises:
      UserError: if the file cannot be read or its content has another sha256.
    """
    arrays, about = npz.load(path, _ABOUT)
    columns: dict[str, dict[str, np.ndarray]] = {}
    with damaged(path):
        for key, array in arrays.items():
            split, column = key.split("/")
            columns.setdefault(split, {})[column] = array
        _check_columns(columns, "row" if about["content"] else "image")
    large = about["content"] is not None
    return Prepared(
        name=about["name"],
        columns=columns,
        scale=about["scale"],
        classes=tuple(about["classes"]),
        origin=about["origin"],
        reader=reopen(path.parent, list(columns)) if large else None,
        content=about["content"],
    )


def _check_columns(columns: dict[str, dict[str, np.ndarray]], field: str) -> None:
    """Raises ValueError unless every split has the column `field`, and columns of one length."""
    for split, part in columns.items():
        if field not in part or len({column.shape[:1] for column in part.values()}) != 1:
            raise ValueError(
                f"its split {split!r:.40} has no {field!r}, or columns of other lengths"
            )
    if not columns:
        raise ValueError("it has no split")


def _flat(columns: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {
        f"{split}/{name}": array for split, part in columns.items() for name, array in part.items()
    }
