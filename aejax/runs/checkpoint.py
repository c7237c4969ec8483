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
import logging
import math
import os
import pathlib
import re
import shutil
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import orbax.checkpoint as ocp

from aejax.errors import UserError
from aejax.files import MALFORMED, file_sha256, parse_json, read_bytes, reason, sync, writing
from aejax.files.json_file import MOST_BYTES
from aejax.memory import check_memory, host_memory
from aejax.runs.leaves import Leaf, leaves_sha256
from aejax.runs.manifest import (
    ARRAYS,
    MANIFEST,
    Damaged,
    encode,
    read_manifest,
    remove,
    steps,
)

PARAMS = "params/"  # the paths of the leaves of the parameters begin with this
BLOCK = 4096  # bytes; a file takes whole blocks on the disk
LEAF_BLOCKS = 3  # blocks for each leaf besides its array: its folder and the files that describe it
OTHER_BLOCKS = 16  # blocks of a checkpoint besides its leaves: the manifest and orbax's own files


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
    _check_unlisted(place, manifest["files"])
    for name, expected in manifest["files"].items():
        if pathlib.PurePath(name).parts[1] in skipped:
            continue
        try:
            found = file_sha256(place / name, within=place)
        except (OSError, ValueError) as error:
            raise Damaged(f"{name} cannot be read: {reason(error)}") from error
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


def newest_params_sha256(folder: pathlib.Path) -> str | None:
    """Returns the `params_sha256` of the newest undamaged checkpoint; None if there is none.

    Raises:
      UserError: if there are checkpoints but all are damaged.
    """
    found = newest(folder, lambda path: path.startswith(PARAMS))
    if found is None:
        return None
    return leaves_sha256({p.removeprefix(PARAMS): leaf for p, leaf in found.leaves.items()})


def _orbax_name(path: str) -> str:
    """Returns the name of a leaf's folder, which is its path with dots instead of slashes."""
    return path.replace("/", ".")


def _check_room(folder: pathlib.Path, leaves: Mapping[str, Leaf]) -> None:
    """Raises the OSError of a full disk if there is too little space on it for the leaves.

    Without this check orbax's threads would print tracebacks of their own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    blocks = (-(-leaf.array.nbytes // BLOCK) + LEAF_BLOCKS for leaf in leaves.values())
    needed = BLOCK * (sum(blocks) + OTHER_BLOCKS)
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _write_arrays(place: pathlib.Path, leaves: Mapping[str, Leaf]) -> None:
    # Orbax cannot write arrays of size 0, so they are left out; the manifest stores their shapes.
    arrays = {_orbax_name(p): leaf.array for p, leaf in leaves.items() if leaf.array.size}
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False)
    before = threading.excepthook

    def unless_full(given: threading.ExceptHookArgs) -> None:
        """Prints the traceback of a thread, but not of one that met the error raised below."""
        if given.exc_value is None or _disk_error(given.exc_value) is None:
            before(given)

    def unless_logged(record: logging.LogRecord) -> bool:
        """Returns whether the log of orbax shows a record: not one of the error raised below."""
        error = record.exc_info[1] if record.exc_info else None
        return error is None or _disk_error(error) is None

    threading.excepthook = unless_full
    logger = logging.getLogger("absl")
    logger.addFilter(unless_logged)
    try:
        handler.save(place, args=ocp.args.PyTreeSave(arrays))  # pyright: ignore[reportArgumentType]
    except ValueError as error:
        found = _disk_error(error)
        if found is None:
            raise
        raise found from error
    finally:
        threading.excepthook = before
        logger.removeFilter(unless_logged)
        handler.close()


def _disk_error(error: BaseException) -> OSError | None:
    """Returns an error of the disk, or None for another one.

    The error of tensorstore contains the operating system's error code only in its message.
    """
    if isinstance(error, OSError):
        return error
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return None if code is None else OSError(int(code[1]), os.strerror(int(code[1])))


def _check_unlisted(place: pathlib.Path, files: Mapping[str, str]) -> None:
    """Raises Damaged if a checkpoint has files that its manifest does not list, which orbax reads.

    Links and anything but files and folders are refused too.
    """
    for path in (place / ARRAYS).rglob("*"):
        name = str(path.relative_to(place))
        if path.is_symlink() or not (path.is_dir() or name in files):
            raise Damaged(f"{name} is a link, or was not there when the checkpoint was written")


def _check_kind(place: pathlib.Path, path: str, record: Mapping[str, Any]) -> None:
    """Raises Damaged if the file that describes an array contradicts the manifest.

    Without this check, a few bytes could describe an array that fills the memory.
    """
    name = f"{_orbax_name(path)}/.zarray"
    try:
        kind = parse_json(read_bytes(place / name, MOST_BYTES))
        # Tensorstore takes memory for a whole chunk.
        inside = all(0 < n <= size for n, size in zip(kind["chunks"], record["shape"], strict=True))
        same = kind["shape"] == record["shape"] and inside
    except MALFORMED as error:
        raise Damaged(f"{ARRAYS}/{name} cannot be read: {reason(error)}") from error
    if not same:
        raise Damaged(f"{ARRAYS}/{name} has another shape than the manifest, or larger chunks")


def _check_size(records: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises Damaged if the arrays of a manifest have more bytes than the machine has memory."""
    try:
        size = sum(
            math.prod(record["shape"]) * np.dtype(record["dtype"]).itemsize
            for record in records.values()
        )
        check_memory(size, "its state", "use a machine with more memory", host_memory())
    except MALFORMED as error:  # UserError is a ValueError
        raise Damaged(
            f"{MANIFEST} describes arrays that cannot be read: {reason(error)}"
        ) from error


def _read_arrays(place: pathlib.Path, records: Mapping[str, Any]) -> dict[str, np.ndarray]:
    filled = {path: record for path, record in records.items() if 0 not in record["shape"]}
    for path, record in filled.items():
        _check_kind(place, path, record)
    _check_size(records)
    item = {_orbax_name(path): 0 for path in filled}
    found = {}
    if item:
        args = ocp.args.PyTreeRestore(
            item,
            restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray) for name in item},
            partial_restore=True,
        )
        handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False)
        try:
            found = handler.restore(place, args=args)  # pyright: ignore[reportArgumentType]
        except Exception as error:  # orbax and tensorstore raise errors of many types
            raise Damaged(f"{ARRAYS} cannot be read: {reason(error)}") from error
        finally:
            handler.close()
    empty = {
        path: np.zeros(record["shape"], np.dtype(record["dtype"]))
        for path, record in records.items()
        if path not in filled
    }
    return {path: np.asarray(found[_orbax_name(path)]) for path in filled} | empty
