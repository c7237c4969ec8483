"""Stores recordings of different lengths with their labels in one file, and pads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aejax.data import npz
from aejax.data.npz import damaged
from aejax.errors import UserError
from aejax.files import json_fields

FILE = "aejax.npz"
# The checks of the fields of a data set's description.
_ABOUT = {
    "name": json_fields.text(),
    "names": json_fields.table_of(json_fields.list_of(json_fields.text())),
    "rate": json_fields.positive_count,
    "origin": json_fields.text(),
    "facts": json_fields.table,
}


class Recordings(NamedTuple):
    """All recordings of a data set, in order."""

    name: str
    sounds: Sequence[np.ndarray]  # the samples of each recording, i16[T_n]
    columns: Mapping[str, np.ndarray]  # label i32[N] and label_* i32[N], where there are classes
    names: Mapping[str, Sequence[str]]  # column -> the names of its values, where they have names
    rate: int  # samples in a second
    origin: str  # where the files came from, and whether their content was verified
    facts: Mapping[str, Any]  # how files were changed, for the provenance in environment.json


def write_recordings(path: Path, found: Recordings) -> None:
    """Writes recordings to `path`, an .npz file that `read_recordings` can read."""
    lengths = np.asarray([len(sound) for sound in found.sounds], np.int32)
    arrays = {"sound": np.concatenate(found.sounds), "length": lengths, **found.columns}
    about = {
        "name": found.name,
        "names": {column: list(names) for column, names in found.names.items()},
        "rate": found.rate,
        "origin": found.origin,
        "facts": dict(found.facts),
    }
    npz.save(path, arrays, about)


def read_recordings(path: Path) -> Recordings:
    """Reads the file that `write_recordings` wrote.

    Raises:
      UserError: if the file is damaged.
    """
    arrays, about = npz.load(path, _ABOUT)
    with damaged(path):
        flat, lengths = arrays.pop("sound"), arrays.pop("length")
        if flat.ndim != 1 or lengths.min(initial=1) < 1 or lengths.sum() != len(flat):
            raise ValueError("its lengths are not those of its sounds")
        if any(column.shape != lengths.shape for column in arrays.values()):
            raise ValueError("a column does not have one value for each sound")
        sounds = np.split(flat, np.cumsum(lengths)[:-1])
    rest = (about[key] for key in ("names", "rate", "origin", "facts"))
    return Recordings(about["name"], sounds, arrays, *rest)


def padded(found: Recordings, seconds: float | None) -> tuple[dict[str, np.ndarray], int]:
    """Pads recordings with zeros to one length, and cuts those that are longer.

    Args:
      found: the recordings.
      seconds: the length to pad to; longer recordings are cut. None: the length of the longest.

    Returns:
      The columns of a split: `sound` i16[N, T, 1], `length` i32[N], `share` f32[N] (length / T) and
      the labels; and the number of recordings that were cut.

    Raises:
      UserError: if `seconds` is shorter than one sample.
    """
    longest = max(map(len, found.sounds))
    size = longest if seconds is None else round(seconds * found.rate)
    if size < 1:
        raise UserError(f"seconds is {seconds}: give a time above 0, or None for the longest")
    sound = np.zeros((len(found.sounds), size, 1), np.int16)
    for row, samples in zip(sound, found.sounds, strict=True):
        row[: len(samples), 0] = samples[:size]
    lengths = np.asarray([min(len(samples), size) for samples in found.sounds], np.int32)
    cut = sum(len(samples) > size for samples in found.sounds)
    share = (lengths / size).astype(np.float32)
    return {"sound": sound, "length": lengths, "share": share, **found.columns}, cut
