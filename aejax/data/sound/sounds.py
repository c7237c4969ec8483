"""Loads a named data set or a folder of sounds as train, validation and test splits."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np

from aejax.data.data_dir import check_trusted, default_data_dir
from aejax.data.sound.changes import Ended
from aejax.data.sound.files import SCALE
from aejax.data.sound.folder import read_folder
from aejax.data.sound.recordings import Recordings, padded
from aejax.data.sound.spoken_digit import NAME, RATE, spoken_digit
from aejax.data.splitting import PARTS, Splits, divide, splits
from aejax.errors import UserError

# The number of a speaker's recordings of a digit in the test split, as its publisher divides them;
# the validation split has as many.
HELD = 5


def sounds(
    name_or_folder: str | os.PathLike,
    *,
    rate: int | None = None,
    seconds: float | None = None,
    mix: bool = False,
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    held_out: str | None = None,
    seed: int = 0,
    prepared_only: bool = False,
) -> Splits:
    """Loads sounds, divided into train, validation and test.

    "spoken_digit" are 3,000 recordings of ten digits by six speakers at 8 kHz. Each speaker's
    recordings 0 to 4 of a digit are the test split, and 5 to 9 validation. A path is a folder of
    .wav and .flac files whose subfolders are the classes; its files are divided at random.

    Args:
      name_or_folder: "spoken_digit", or the path of a folder.
      rate: the sampling rate in hertz to which files are converted; None: the rate of the files.
      seconds: the length to which sounds are padded with zeros; longer ones are cut, and
        environment.json records how many. None: the length of the longest.
      mix: whether to average the channels of files that have several.
      data_dir: the folder of prepared data sets; by default that of tensorflow-datasets.
      manual_dir: a folder with the original files of "spoken_digit", needed only the first time.
      validation: the share or the number of a folder's files in the validation split.
      test: the share or the number of a folder's files in the test split.
      held_out: the name of a speaker, or of a folder's class, all of whose sounds are the test
        split; None: the division above.
      seed: the seed of the random division.
      prepared_only: whether to refuse a path, and a data set that data_dir does not hold yet, as
        for a name that somebody else chose.

    Returns:
      Three splits with arrays `sound` i16[N, T, 1], `length` i32[N] and, where there are classes,
      `label` i32[N]. "spoken_digit" also has the known factors digit, speaker and number (see
      `split.factors`). A batch has x f32[B, T, 1] in [-1, 1] and a mask that is 0 after the end of
      a recording.

    Raises:
      UserError: if a file is not a sound, is cut off, empty, silent, of another rate or of several
        channels, the name is unknown, files are missing, or data_dir cannot be written.
    """
    name, folder = str(name_or_folder), Path(name_or_folder).expanduser()
    path = isinstance(name_or_folder, Path) or os.sep in name or name.startswith(".")
    if not path and name != NAME:
        raise UserError(
            f"unknown data set {name!r}: give {NAME!r}, or the path of a folder of sounds"
        )
    if path:
        check_trusted(name, prepared_only)
        found = read_folder(folder, rate, mix)
    elif rate in (None, RATE):
        root, manual = (None if p is None else Path(p).expanduser() for p in (data_dir, manual_dir))
        found = spoken_digit(root or default_data_dir(), manual, prepared_only)
    else:
        raise UserError(f"{NAME} has {RATE} Hz and is not resampled to {rate} Hz: omit rate")
    columns, cut = padded(found, seconds)
    parts = _parts(found, columns, held_out, validation, test, seed)
    made = splits(
        found.name,
        [parts[part] for part in PARTS],
        field="sound",
        scale=SCALE,
        binarise="none",
        classes=tuple(found.names.get("label", ())),
        origin=found.origin,
        changes=(Ended(),),
    )
    facts = {"rate": found.rate, "cut": cut, "held_out": held_out, **found.facts}
    train, valid, tested = (dataclasses.replace(split, facts=facts) for split in made)
    return train, valid, tested


def _parts(
    found: Recordings,
    columns: dict[str, np.ndarray],
    held_out: str | None,
    validation: float,
    test: float,
    seed: int,
) -> dict[str, dict[str, np.ndarray]]:
    """Divides the columns of all recordings into those of "train", "validation" and "test"."""

    def rows(chosen: np.ndarray) -> dict[str, np.ndarray]:
        return {name: column[chosen] for name, column in columns.items()}

    number = columns.get("label_number")
    everything = np.ones(len(found.sounds), bool)
    out = ~everything if held_out is None else _held_out(found, held_out)
    if number is not None:
        tested = out if held_out is not None else number < HELD
        valid = ~out & (number >= HELD) & (number < 2 * HELD)
        masks = {"train": ~tested & ~valid, "validation": valid, "test": tested}
        return {part: rows(mask) for part, mask in masks.items()}
    shares = {"validation": validation} | ({} if held_out is not None else {"test": test})
    kept = divide(rows(~out), found.name, shares=shares, seed=seed)
    return dict(zip(("train", *shares), kept, strict=True)) | (
        {} if held_out is None else {"test": rows(out)}
    )


def _held_out(found: Recordings, name: str) -> np.ndarray:
    """Returns whether each recording is by the speaker, or of the class, called `name`, bool[N].

    Raises:
      UserError: if no recording is, or all are.
    """
    column = "label_speaker" if "label_speaker" in found.columns else "label"
    names = found.names.get(column, ())
    if name not in names:
        raise UserError(
            f"{found.name} has no {name!r} to hold out: give one of {', '.join(names) or 'none'}"
        )
    out = found.columns[column] == names.index(name)
    if out.all():
        raise UserError(f"all sounds of {found.name} are of {name!r}: hold out another")
    return out
