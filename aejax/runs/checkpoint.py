"""Checkpoints: each stores the whole training state at one step, with sha256 hashes of its files.

A checkpoint is a folder `checkpoints/<step>`. Orbax writes its subfolder `arrays/`, which has one
folder for each leaf of the state. Its file `manifest.json` stores the sha256 of each leaf (over its
path, dtype, shape and bytes), of each file, and of the manifest. A checkpoint is written to a
hidden folder, which is then renamed, so that a killed process leaves no partial checkpoint.

    leaves = host_leaves(state)               # copies, because the next step reuses the buffers
    write(folder, 500, leaves)
    checkpoint = newest(folder)               # the newest undamaged one; warns of damaged ones
    state = fill(template, checkpoint.leaves) # has the devices and key types of the template

The hashes are needed because orbax does not notice a changed byte in the file of an array. No other
module uses orbax.
"""

from __future__ import annotations

import errno
import os
import pathlib
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import orbax.checkpoint as ocp

from aejax.errors import UserError
from aejax.files import file_sha256, sync, writing
from aejax.runs.leaves import Leaf
from aejax.runs.manifest import MANIFEST, Damaged, encode, read_manifest, remove, steps

ARRAYS = "arrays"
LEAF_OVERHEAD = 4096  # the estimated number of bytes on the disk per leaf, besides its array


class Checkpoint(NamedTuple):
    """The content of a checkpoint, verified by its hashes."""

    step: int
    leaves: Mapping[str, Leaf]  # maps a path ("params/encoder/...") to its leaf
    figures: Mapping[str, float]  # name -> validation result at this step; `best` compares these


def write(
    folder: pathlib.Path,
    step: int,
    leaves: Mapping[str, Leaf],
    figures: Mapping[str, float] | None = None,
    before_commit: Callable[[], None] = lambda: None,
) -> None:
    """Writes a checkpoint, either completely or not at all.

    Args:
      folder: the run's `checkpoints` folder.
      step: the number of completed steps.
      leaves: the leaves of the state, as `host_leaves` returns them.
      figures: name -> validation result at this step.
      before_commit: a function that is called when everything is on the disk, just before the
        checkpoint is renamed to its final name.

    Raises:
      UserError: if the disk is full or the folder cannot be written; earlier checkpoints are not
        changed.
    """
    hidden = folder / f".{step}.tmp"
    with writing(folder):
        try:
            shutil.rmtree(hidden, ignore_errors=True)
            _check_room(folder, leaves)
            (hidden / ARRAYS).mkdir(parents=True)
            _write_arrays(hidden / ARRAYS, leaves)
            manifest = {
                "step": step,
                "figures": dict(figures or {}),
                "leaves": {path: leaf.record(path) for path, leaf in leaves.items()},
                "files": {
                    str(file.relative_to(hidden)): file_sha256(file)
                    for file in sorted(hidden.rglob("*"))
                    if file.is_file()
                },
            }
            (hidden / MANIFEST).write_bytes(encode(manifest))
            for path in [*hidden.rglob("*"), hidden]:
                sync(path)
            before_commit()
            # If there is a damaged checkpoint of the same step, this one replaces it.
            remove(folder, step)
            os.rename(hidden, folder / str(step))
            sync(folder)
        except BaseException:
            shutil.rmtree(hidden, ignore_errors=True)
            raise


def read(
    folder: pathlib.Path, step: int, keep: Callable[[str], bool] = lambda path: True
) -> Checkpoint:
    """Reads one checkpoint and verifies it against its manifest.

    Args:
      folder: the run's `checkpoints` folder.
      step: the step of the checkpoint, one of `steps(folder)`.
      keep: a function of a leaf's path that returns whether to read the leaf. The files of other
        leaves are not read and may be missing.

    Raises:
      Damaged: if a file or a leaf differs from what was written.
    """
    place = folder / str(step)
    manifest = read_manifest(place)
    kept = {path: record for path, record in manifest["leaves"].items() if keep(path)}
    skipped = {_orbax_name(path) for path in manifest["leaves"] if path not in kept}
    for name, expected in manifest["files"].items():
        parts = pathlib.PurePath(name).parts
        if parts[1] in skipped:
            continue
        try:
            found = file_sha256(place / name)
        except OSError as error:
            raise Damaged(f"{name} cannot be read: {error.strerror}") from error
        if found != expected:
            raise Damaged(f"{name} has changed since it was written (its sha256 differs)")
    arrays = _read_arrays(place / ARRAYS, kept)
    leaves = {}
    for path, record in kept.items():
        leaves[path] = Leaf(arrays[path], record["key"])
        if leaves[path].record(path) != record:
            raise Damaged(f"leaf {path} has changed since it was written (its sha256 differs)")
    return Checkpoint(manifest["step"], leaves, manifest["figures"])


def newest(
    folder: pathlib.Path,
    keep: Callable[[str], bool] = lambda path: True,
    step: int | None = None,
) -> Checkpoint | None:
    """Reads the newest undamaged checkpoint, and warns of each damaged one that it skips.

    Args:
      folder: the run's `checkpoints` folder.
      keep: a function of a leaf's path that returns whether to read the leaf.
      step: the step of the only checkpoint to read; None: all are tried, newest first.

    Returns:
      The checkpoint, or None if the folder has no checkpoint at all.

    Raises:
      UserError: if there are checkpoints but all are damaged, or if `step` has no checkpoint.
    """
    found = steps(folder)
    if step is not None and step not in found:
        raise UserError(
            f"{folder} has no checkpoint of step {step}, only checkpoints of the steps {found}: "
            "choose one of them"
        )
    reasons = []
    for candidate in found if step is None else [step]:
        try:
            return read(folder, candidate, keep)
        except Damaged as error:
            reasons.append(f"{folder / str(candidate)} is damaged: {error}")
            warnings.warn(f"{reasons[-1]}; trying the one before it", stacklevel=2)
    if reasons:
        raise UserError(
            f"all checkpoints are damaged ({'; '.join(reasons)}); nothing was changed: restore the "
            "folder from a copy, or start a new run in another folder"
        )
    return None


def _orbax_name(path: str) -> str:
    """Returns the name of a leaf's folder, which is its path with dots instead of slashes."""
    return path.replace("/", ".")


def _check_room(folder: pathlib.Path, leaves: Mapping[str, Leaf]) -> None:
    """Raises the OSError of a full disk if there is too little space on it for the leaves.

    Without this check orbax's threads would print tracebacks of their own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    needed = sum(leaf.array.nbytes + LEAF_OVERHEAD for leaf in leaves.values())
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _write_arrays(place: pathlib.Path, leaves: Mapping[str, Leaf]) -> None:
    # Orbax cannot write arrays of size 0, so they are left out; the manifest stores their shapes.
    arrays = {_orbax_name(p): leaf.array for p, leaf in leaves.items() if leaf.array.size}
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False)
    try:
        handler.save(place, args=ocp.args.PyTreeSave(arrays))  # pyright: ignore[reportArgumentType]
    except ValueError as error:
        # The error of tensorstore contains the operating system's error code only in its message.
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
    finally:
        handler.close()


def _read_arrays(place: pathlib.Path, records: Mapping[str, Any]) -> dict[str, np.ndarray]:
    filled = {path: record for path, record in records.items() if 0 not in record["shape"]}
    item = {_orbax_name(path): 0 for path in filled}
    found = {}
    if item:
        args = ocp.args.PyTreeRestore(
            item,
            restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray) for name in item},
            partial_restore=True,
        )
        handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False)
        found = handler.restore(place, args=args)  # pyright: ignore[reportArgumentType]
        handler.close()
    empty = {
        path: np.zeros(record["shape"], np.dtype(record["dtype"]))
        for path, record in records.items()
        if path not in filled
    }
    return {path: np.asarray(found[_orbax_name(path)]) for path in filled} | empty
