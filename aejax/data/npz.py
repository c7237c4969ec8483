"""Writes and reads .npz files that hold arrays, a description and the arrays' sha256."""

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
    """Writes arrays and their description in the form that `load` reads.

    Args:
      path: the path of the .npz file.
      arrays: the arrays by name; no array may be called "about".
      about: the description, a mapping of JSON values, to which the arrays' "sha256" is added.

    Raises:
      OSError: if the disk is full or the folder cannot be written; an older file stays as it was.
    """
    description = json.dumps({**about, "sha256": fingerprint(arrays)})
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **arrays, about=np.array(description))


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads the arrays and the description that `save` wrote.

    Raises:
      UserError: if the file is damaged: it cannot be read, or the arrays' sha256 differs.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        about = json.loads(str(arrays.pop("about")))
        if fingerprint(arrays) != about["sha256"]:
            raise ValueError("its sha256 differs")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is damaged ({error}): delete the folder {path.parent} and start again"
        ) from error
    return arrays, about
