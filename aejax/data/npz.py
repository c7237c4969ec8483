"""One .npz of arrays and what is said of them: written whole, read by numpy, its hash compared."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aejax.data.split import fingerprint
from aejax.errors import UserError
from aejax.files import replacing


def save(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Writes arrays, and plain values `about` them, for `load`.

    Raises:
      OSError: the disk is full or the folder cannot be written; an older file is untouched.
    """
    said = json.dumps({**about, "sha256": fingerprint(arrays)})
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **arrays, about=np.array(said))


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays that `save` wrote, and what it was told about them.

    Raises:
      UserError: the file is damaged: it cannot be read or its content's hash differs.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        about = json.loads(str(arrays.pop("about")))
        if fingerprint(arrays) != about["sha256"]:
            raise ValueError("its sha256 differs")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is damaged ({error}): delete its folder and start again"
        ) from error
    return arrays, about
