"""Reads a folder of .wav and .flac files, whose subfolders, if there are any, are the classes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from aejax.data.class_folder import classes_of, paths_in
from aejax.data.sound.files import MOST_BYTES, SUFFIXES, at_rate, read_sound
from aejax.data.sound.recordings import Recordings
from aejax.errors import UserError
from aejax.files import read_bytes, reading
from aejax.optional import needs


def read_folder(folder: Path, rate: int | None, mix: bool) -> Recordings:
    """Reads all sounds of a folder, in the order of their paths.

    Args:
      folder: a folder of sounds, or of subfolders with sounds, one for each class.
      rate: the sampling rate to which all sounds are converted; None: all must have the same rate.
      mix: whether to average the channels of files that have several.

    Raises:
      UserError: if a file cannot be used (see `files.read_sound`), or if the files have different
        rates and `rate` is None.
    """
    paths = paths_in(folder, SUFFIXES, "sounds")
    sounds, rates, mixed = [], Counter(), 0
    for path in paths:
        with reading(path, "remove it"):
            content = read_bytes(path, MOST_BYTES)
        sound = read_sound(content, str(path), mix)
        own = sound.rate if rate is None else rate
        if rate is None and rates and sound.rate not in rates:
            raise UserError(
                f"{path} has {sound.rate} Hz, but {paths[0]} has {next(iter(rates))}: give rate= "
                "(--rate), to which all are converted"
            )
        rates[sound.rate] += 1
        mixed += sound.channels > 1
        samples = at_rate(sound, own, str(path))
        if not np.any(samples):
            raise UserError(f"{path} holds nothing but silence at {own} Hz: remove it")
        sounds.append(samples)
    final = next(iter(rates)) if rate is None else rate
    facts: dict[str, Any] = {
        f"resampled from {old} Hz": n for old, n in sorted(rates.items()) if old != final
    }
    if facts:
        facts["resampler"] = f"soxr {needs('soxr', 'resampling').__version__}, HQ"
    if mixed:
        facts["mixed to one channel"] = mixed
    classes, labels = classes_of(folder, paths)
    columns = {} if labels is None else {"label": labels}
    names = {} if labels is None else {"label": classes}
    name = folder.resolve().name
    return Recordings(name, sounds, columns, names, final, "a folder of sounds", facts)
