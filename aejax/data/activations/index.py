"""The index of an activation store: what is in which shard, and whether the store is whole.

A store is a folder with `index.json` and raw little-endian shards, row-major [tokens, d], one file
a hook and shard, so that `np.memmap(file, dtype, "r").reshape(-1, d)` reads one from anywhere.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from aejax.data import json_fields
from aejax.data.activations.moments import Moments
from aejax.errors import UserError
from aejax.files import read_json, write_json

FILE = "index.json"
FORMAT = "aejax activations 1"
DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
# Reasons why a token is not stored, in the order in which they are asked.
REASONS = ("masked", "position", "norm")

# What a field may be.
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
    "limits": json_fields.table_of(json_fields.positive),
    "settings": json_fields.table,
}
_HOOK = {
    "name": json_fields.text(),
    "shape": lambda value: json_fields.list_of(json_fields.some)(value) and len(value) == 1,
    "dtype": json_fields.text("|".join(DTYPES)),
    "mean": json_fields.list_of(json_fields.number),
    "squares": json_fields.positive,
    "norms": json_fields.positive,
}
_SHARD = {
    "tokens": json_fields.some,
    # A name that leads elsewhere would be read from there.
    "files": json_fields.list_of(json_fields.text(r"[A-Za-z0-9_.-]+\.bin")),
    "sha256": json_fields.list_of(json_fields.sha256),
}


class Hook(NamedTuple):
    """One place in the network that activations were taken from."""

    name: str
    size: int  # d
    dtype: str  # one of DTYPES
    moments: Moments  # of what is stored

    @property
    def row(self) -> int:
        """Bytes of one token."""
        return self.size * DTYPES[self.dtype].itemsize


class Shard(NamedTuple):
    """A run of tokens, one file a hook, in the order of the hooks."""

    tokens: int
    files: tuple[str, ...]
    sha256: tuple[str, ...]  # over each file's bytes


@dataclasses.dataclass(frozen=True)
class Index:
    """All that a store says of itself."""

    hooks: tuple[Hook, ...] = ()
    shards: tuple[Shard, ...] = ()
    complete: bool = False  # False while a writer is at work, or was killed
    appends: int = 0  # calls of `append` whose tokens are in the shards
    offered: int = 0  # tokens of those calls, dropped ones included
    dropped: Mapping[str, int] = dataclasses.field(default_factory=dict)  # reason -> tokens
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)  # hook -> largest norm
    # What the writer was told: provenance, filter, shard_tokens, dtype.
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """N, tokens of each hook."""
        return sum(shard.tokens for shard in self.shards)


def file_name(hook: str, shard: int) -> str:
    """The file of one hook's shard: hooks are called like `blocks.3/attn`, files may not be."""
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', hook)}-{shard:05d}.bin"


def save(folder: Path, index: Index) -> None:
    """Writes the index, whole or not at all."""
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


def load(folder: Path) -> Index:
    """Reads the index of a folder; the shards are not looked at.

    Raises:
      UserError: there is none, or it is damaged.
    """
    path = folder / FILE
    read = read_json(path, "activation store")
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
        )
        _check_whole(index, read["tokens"])
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({error}); restore it or write the store anew"
        ) from error
    return index


def check_files(folder: Path, index: Index) -> None:
    """Refuses a store whose shards are missing or cut, which their sizes tell.

    Raises:
      UserError: names the file.
    """
    for shard in index.shards:
        for hook, name in zip(index.hooks, shard.files, strict=True):
            path, wanted = folder / name, shard.tokens * hook.row
            held = path.stat().st_size if path.is_file() else None
            if held != wanted:
                what = "is missing" if held is None else f"has {held} bytes instead of {wanted}"
                raise UserError(f"{path} {what}: restore it or write the store anew")


def _hook(entry: Mapping[str, Any], tokens: int) -> Hook:
    mean = np.asarray(entry["mean"], np.float64)
    moments = Moments(tokens, mean, float(entry["squares"]), float(entry["norms"]))
    return Hook(entry["name"], entry["shape"][0], entry["dtype"], moments)


def _check_whole(index: Index, tokens: int) -> None:
    """What the fields say of each other."""
    names = [hook.name for hook in index.hooks]
    if tokens != index.tokens:
        raise ValueError(f"'tokens' is {tokens}, its shards have {index.tokens}")
    if index.offered != tokens + sum(index.dropped.values()):
        raise ValueError(f"'offered' is {index.offered}, not 'tokens' and 'dropped' together")
    if len(set(names)) < len(names) or (index.shards and not names):
        raise ValueError(f"'hooks' have the names {names}")
    if set(index.limits) not in (set(), set(names)):
        raise ValueError(f"'limits' are of {sorted(index.limits)}, the hooks are {names}")
    for hook in index.hooks:
        if len(hook.moments.mean) != hook.size:
            raise ValueError(
                f"'mean' of hook {hook.name!r} has {len(hook.moments.mean)} numbers, its 'shape' "
                f"is {hook.size}"
            )
    for i, shard in enumerate(index.shards):
        if not len(shard.files) == len(shard.sha256) == len(names):
            raise ValueError(f"'files' or 'sha256' of shard {i} are not one for each hook")
