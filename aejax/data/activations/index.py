"""The index of an activation store: its hooks, its shards, and whether it is complete.

A store is a folder with `index.json` and shards. A shard has one raw file per hook, little-endian
and row-major [tokens, d], which any program can read: `np.memmap(file, dtype, "r").reshape(-1, d)`.
It also has one file per column, int32 [tokens]; columns are integers such as the tokens' ids.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from aejax.data.moments import Moments
from aejax.errors import UserError
from aejax.files import json_fields, read_json, write_json

FILE = "index.json"
FORMAT = "aejax activations 1"
DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
# The reasons for which a token is not stored, in the order in which they are checked.
REASONS = ("masked", "position", "token", "norm")
COLUMN = np.dtype("<i4")  # the dtype of a column

# The check of each field of index.json, of its hooks and of its shards.
_INDEX = {
    "format": json_fields.text(FORMAT),
    "tokens": json_fields.count,
    "hooks": json_fields.list_of(json_fields.table),
    "shards": json_fields.list_of(json_fields.table),
    "complete": json_fields.flag,
    "appends": json_fields.count,
    "offered": json_fields.count,
    "dropped": lambda value: (
        json_fields.table_of(json_fields.count)(value) and set(value) == set(REASONS)
    ),
    "columns": json_fields.list_of(json_fields.text()),
    "limits": json_fields.table_of(json_fields.non_negative),
    "settings": json_fields.table,
}
_HOOK = {
    "name": json_fields.text(),
    "shape": lambda value: (
        json_fields.list_of(json_fields.positive_count)(value) and len(value) == 1
    ),
    "dtype": json_fields.text("|".join(DTYPES)),
    "mean": json_fields.list_of(json_fields.number),
    "squares": json_fields.non_negative,
    "norms": json_fields.non_negative,
}
_SHARD = {
    "tokens": json_fields.positive_count,
    # A file name with a folder in it could make the reader open a file outside the store.
    "files": json_fields.list_of(json_fields.text(r"[A-Za-z0-9_.-]+\.bin")),
    "sha256": json_fields.list_of(json_fields.sha256),
}


class Hook(NamedTuple):
    """The record of one hook, a place in the network whose activations are stored."""

    name: str
    size: int  # the number of elements of an activation, d
    dtype: str  # one of DTYPES
    moments: Moments  # the mean, variance and mean norm of the stored tokens

    @property
    def row(self) -> int:
        """The number of bytes of one token."""
        return self.size * DTYPES[self.dtype].itemsize


class Shard(NamedTuple):
    """Consecutive tokens of a store, in one file per hook and column."""

    tokens: int  # the number of tokens
    files: tuple[str, ...]  # the file names, in the order of the hooks and then of the columns
    sha256: tuple[str, ...]  # the sha256 of each file


@dataclasses.dataclass(frozen=True)
class Index:
    """The content of index.json."""

    hooks: tuple[Hook, ...] = ()
    shards: tuple[Shard, ...] = ()
    complete: bool = False  # False until the writer finishes
    appends: int = 0  # the number of calls of `append` whose tokens are in the shards
    offered: int = 0  # the number of tokens in those calls, including dropped ones
    # The number of dropped tokens for each reason in REASONS.
    dropped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    # The largest norm that is kept for each hook; empty if the filter does not limit norms.
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)
    # The arguments of the writer: provenance, filter, shard_tokens, dtype.
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    columns: tuple[str, ...] = ()  # the names of the columns, such as "token" and "document"

    @property
    def tokens(self) -> int:
        """The number of tokens of each hook, N."""
        return sum(shard.tokens for shard in self.shards)

    def __repr__(self) -> str:
        # The moments alone, which are numbers of each hook's size, would fill a page.
        hooks = ", ".join(f"{hook.name} {hook.dtype}[{hook.size}]" for hook in self.hooks)
        dropped = {reason: count for reason, count in self.dropped.items() if count}
        return f"Index(tokens={self.tokens}, hooks=({hooks}), dropped={dropped})"

    @property
    def rows(self) -> list[int]:
        """The number of bytes of one token in each file of a shard, in the order of the files."""
        return [hook.row for hook in self.hooks] + [COLUMN.itemsize] * len(self.columns)


def file_name(hook: str, shard: int) -> str:
    """Returns the name of a shard's file; characters of `hook` such as "/" become "_"."""
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', hook)}-{shard:05d}.bin"


def write_index(folder: Path, index: Index) -> None:
    """Writes index.json, completely or not at all."""
    hooks = []
    for hook in index.hooks:
        moments = hook.moments
        hooks.append(
            {
                "name": hook.name,
                "shape": [hook.size],
                "dtype": hook.dtype,
                "mean": moments.mean,
                "scale": moments.scale,
                "gamma": moments.gamma,
                "mean_norm": moments.mean_norm,
                "squares": moments.squares,
                "norms": moments.norms,
            }
        )
    known = {**{f.name: getattr(index, f.name) for f in dataclasses.fields(index)}, "hooks": hooks}
    shards = [shard._asdict() for shard in index.shards]
    write_json(folder / FILE, {"format": FORMAT, "tokens": index.tokens, **known, "shards": shards})


def read_index(folder: Path) -> Index:
    """Reads and checks index.json; the shards are not opened.

    Raises:
      UserError: if the file is missing or damaged.
    """
    path = folder / FILE
    read = read_json(path, {}, "activation store")
    _complete(read)
    try:
        json_fields.check_fields("the index", read, _INDEX)
        for i, entry in enumerate(read["hooks"]):
            json_fields.check_fields(f"hook {i}", entry, _HOOK)
        for i, entry in enumerate(read["shards"]):
            json_fields.check_fields(f"shard {i}", entry, _SHARD)
        index = Index(
            hooks=tuple(_hook(entry, read["tokens"]) for entry in read["hooks"]),
            shards=tuple(
                Shard(s["tokens"], tuple(s["files"]), tuple(s["sha256"])) for s in read["shards"]
            ),
            **{name: read[name] for name in ("complete", "appends", "offered")},
            **{name: read[name] for name in ("dropped", "limits", "settings")},
            columns=tuple(read["columns"]),
        )
        _check_whole(index, read["tokens"])
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({error}): restore it, or delete the store and write it again"
        ) from error
    return index


def check_files(folder: Path, index: Index) -> None:
    """Checks that every file of the shards exists and has the right size.

    Raises:
      UserError: if a file is missing or has another size; the message names the file.
    """
    for shard in index.shards:
        for row, name in zip(index.rows, shard.files, strict=True):
            path, wanted = folder / name, shard.tokens * row
            held = path.stat().st_size if path.is_file() else None
            if held != wanted:
                what = "is missing" if held is None else f"has {held} bytes instead of {wanted}"
                raise UserError(
                    f"{path} {what}: restore it, or delete the store and write it again"
                )


def _complete(read: dict[str, Any]) -> None:
    """Adds the fields that index.json of older stores, which had no columns, does not have."""
    read.setdefault("columns", [])
    if isinstance(read.get("dropped"), dict):
        read["dropped"].setdefault("token", 0)


def _hook(entry: Mapping[str, Any], tokens: int) -> Hook:
    mean = np.asarray(entry["mean"], np.float64)
    moments = Moments(tokens, mean, float(entry["squares"]), float(entry["norms"]))
    return Hook(entry["name"], entry["shape"][0], entry["dtype"], moments)


def _check_whole(index: Index, tokens: int) -> None:
    """Raises ValueError if fields of the index contradict each other."""
    names = [hook.name for hook in index.hooks]
    if tokens != index.tokens:
        raise ValueError(f"'tokens' is {tokens}, but the shards that it lists have {index.tokens}")
    if index.offered != tokens + sum(index.dropped.values()):
        raise ValueError(f"'offered' is {index.offered}, not the sum of 'tokens' and 'dropped'")
    if len(set(names)) < len(names) or (index.shards and not names):
        raise ValueError(f"'hooks' has the names {names}, but needs one or more different names")
    if len(set(index.columns)) < len(index.columns):
        raise ValueError(f"'columns' has the names {list(index.columns)}, of which two are equal")
    if set(index.limits) not in (set(), set(names)):
        raise ValueError(f"'limits' has the hooks {sorted(index.limits)} instead of {names}")
    for hook in index.hooks:
        if len(hook.moments.mean) != hook.size:
            raise ValueError(
                f"'mean' of hook {hook.name!r} has {len(hook.moments.mean)} numbers, but its "
                f"'shape' is {hook.size}"
            )
    for i, shard in enumerate(index.shards):
        if not len(shard.files) == len(shard.sha256) == len(index.rows):
            raise ValueError(
                f"'files' or 'sha256' of shard {i} does not have one entry per hook and column"
            )
