"""Lists the checkpoints in a folder, reads their manifests, and removes old checkpoints."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
from typing import Any

from aejax.files import writing

MANIFEST = "manifest.json"


class Damaged(Exception):
    """A checkpoint differs from what was written; the message names the file or the leaf."""


def steps(folder: pathlib.Path) -> list[int]:
    """Returns the steps of all checkpoints, damaged ones too, newest first."""
    if not folder.is_dir():
        return []
    return sorted((int(p.name) for p in folder.iterdir() if p.name.isdigit()), reverse=True)


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
        found = (place / MANIFEST).read_bytes()
        manifest = json.loads(found)["manifest"]
        whole = encode(manifest) == found
    except OSError as error:
        raise Damaged(f"{MANIFEST} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{MANIFEST} has changed since it was written") from error
    if not whole:
        raise Damaged(f"{MANIFEST} has changed since it was written (its sha256 differs)")
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
    """Removes hidden folders that killed processes left; the caller must hold the folder's lock."""
    if folder.is_dir():
        for path in folder.glob(".*.*"):
            shutil.rmtree(path, ignore_errors=True)
