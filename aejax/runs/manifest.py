"""Lists the checkpoints in a folder, reads their manifests, and removes old checkpoints."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

from aejax.errors import UserError
from aejax.files import MALFORMED, json_fields, parse_json, read_bytes, reason, writing
from aejax.files.json_file import MOST_BYTES

MANIFEST = "manifest.json"
ARRAYS = "arrays"  # the subfolder of a checkpoint that orbax writes

# The checks of the fields of a manifest, whose own sha256 proves only that nobody changed it by
# accident. A leaf has the sizes of its axes, so that no array is larger than it says.
_LEAF = {
    "shape": json_fields.list_of(json_fields.count),
    "dtype": json_fields.text("[a-z0-9_]+"),
    "key": json_fields.optional(json_fields.text()),
    "sha256": json_fields.sha256,
}
_FIELDS = {
    "step": json_fields.count,
    "figures": json_fields.table_of(lambda value: type(value) in (int, float)),  # may be NaN
    "leaves": json_fields.table_of(json_fields.record_of(_LEAF)),
    "files": json_fields.table_of(json_fields.sha256),
}
# A file's name in the manifest: relative, in the folder of one leaf, and without "." or "..".
_NAME = rf"{ARRAYS}(/(?!\.\.?(/|$))[^/\0]+)+"


class Damaged(Exception):
    """A checkpoint differs from what was written; the message names the file or the leaf."""


def steps(folder: pathlib.Path) -> list[int]:
    """Returns the steps of all checkpoints, damaged ones too, newest first."""
    if not folder.is_dir():
        return []
    with _listing(folder):
        names = [path.name for path in folder.iterdir()]
    return sorted((int(name) for name in names if re.fullmatch("[0-9]{1,18}", name)), reverse=True)


@contextlib.contextmanager
def _listing(folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read ({reason(error)}): check its permissions"
        ) from error


def encode(manifest: dict[str, Any]) -> bytes:
    """Returns a checkpoint's manifest, with its sha256, as the content of a JSON file."""
    body = json.dumps(manifest, indent=1, sort_keys=True)
    proof = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps({"manifest": manifest, "sha256": proof}, indent=1, sort_keys=True).encode()


def read_manifest(place: pathlib.Path) -> dict[str, Any]:
    """Reads and verifies the manifest of one checkpoint.

    Args:
      place: the folder of the checkpoint.

    Raises:
      Damaged: if the manifest is missing, or differs from what was written.
    """
    try:
        found = read_bytes(place / MANIFEST, MOST_BYTES, within=place)
        manifest = parse_json(found)["manifest"]
        whole = encode(manifest) == found
    except OSError as error:
        raise Damaged(f"{MANIFEST} cannot be read: {reason(error)}") from error
    except MALFORMED as error:
        raise Damaged(f"{MANIFEST} has changed since it was written") from error
    if not whole:
        raise Damaged(f"{MANIFEST} has changed since it was written (its sha256 differs)")
    try:
        json_fields.check_fields(MANIFEST, manifest, _FIELDS)
    except ValueError as error:
        raise Damaged(reason(error)) from error
    for name in manifest["files"]:
        if not re.fullmatch(_NAME, name):
            raise Damaged(f"{MANIFEST} names the file {name!r:.80}, which is not in {ARRAYS}/")
    return manifest


def best_figure(folder: pathlib.Path, figure: str) -> tuple[int, float] | None:
    """Returns (step, value) of the checkpoint in which a validation result is smallest.

    It returns None if no undamaged checkpoint has a validation result of this name.
    """
    carried = {}
    for step in steps(folder):
        try:
            figures = read_manifest(folder / str(step))["figures"]
        except Damaged:
            continue  # `newest` warns of a damaged checkpoint when it tries to read it.
        if figure in figures:
            carried[step] = figures[figure]
    return min(carried.items(), key=lambda item: item[1]) if carried else None


def figures(folder: pathlib.Path) -> set[str]:
    """Returns the names of all validation results in the undamaged checkpoints."""
    names: set[str] = set()
    for step in steps(folder):
        try:
            names |= set(read_manifest(folder / str(step))["figures"])
        except Damaged:
            continue
    return names


def prune(folder: pathlib.Path, keep: int, best: str | None = None) -> None:
    """Removes all checkpoints but the newest, and the one whose validation result is smallest.

    Args:
      folder: the run's `checkpoints` folder.
      keep: how many of the newest checkpoints to keep.
      best: the name of a validation result; None: only the newest checkpoints are kept.
    """
    found = best_figure(folder, best) if best else None
    with writing(folder):
        for step in steps(folder)[keep:]:
            if found is None or step != found[0]:
                remove(folder, step)


def remove(folder: pathlib.Path, step: int) -> None:
    """Removes a checkpoint.

    It is renamed to a hidden folder first, so that a killed process leaves no partial checkpoint.
    """
    place, hidden = folder / str(step), folder / f".{step}.old"
    if place.exists():
        shutil.rmtree(hidden, ignore_errors=True)
        os.rename(place, hidden)
        shutil.rmtree(hidden)


def set_aside(folder: pathlib.Path, step: int) -> None:
    """Renames the checkpoints of all later steps, which are damaged, to damaged-STEP."""
    with writing(folder):
        for damaged in steps(folder):
            if damaged > step:
                place = folder / f"damaged-{damaged}"
                shutil.rmtree(place, ignore_errors=True)
                os.rename(folder / str(damaged), place)


def clean(folder: pathlib.Path) -> None:
    """Removes hidden folders that killed processes left; the caller must hold the folder's lock.

    Raises:
      UserError: if the folder is a link: what is elsewhere would be removed, and written there.
    """
    if folder.is_symlink():
        raise UserError(f"{folder} is a link to another folder: replace it by a folder")
    if folder.is_dir():
        with _listing(folder):
            paths = list(folder.iterdir())
        for path in paths:
            if re.fullmatch(r"\.[0-9]{1,18}\.(tmp|old)", path.name):
                shutil.rmtree(path, ignore_errors=True)
