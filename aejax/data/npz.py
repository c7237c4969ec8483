"""Writes and reads .npz files that hold arrays, a description and the arrays' sha256."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from aejax.data.split import fingerprint
from aejax.files import json_fields, parse_json, read_npz, reading, replacing


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


def damaged(path: Path) -> AbstractContextManager[None]:
    """Turns any error inside the block into a UserError that a prepared data set is damaged."""
    return reading(path, f"delete the folder {path.parent} and start again", says="is damaged")


def load(
    path: Path, fields: Mapping[str, json_fields.Fits]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads the arrays and the description that `save` wrote.

    Args:
      path: the path of the .npz file.
      fields: name of a field of the description -> the check of its value, because the sha256 does
        not cover the description.

    Raises:
      UserError: if the file is damaged: it cannot be read, the arrays' sha256 differs, or a field
        of the description is invalid.
    """
    with damaged(path):
        arrays = read_npz(path)
        about = parse_json(str(arrays.pop("about")))
        json_fields.check_fields("its description", about, fields)
        if fingerprint(arrays) != about.get("sha256"):
            raise ValueError("its sha256 differs")
    return arrays, about
