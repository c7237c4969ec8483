"""The index of an activation store: what is in which shard, and whether the store is whole.

A store is a folder with `index.json` and raw little-endian shards, row-major [tokens, d], one file
a hook and shard, so that `np.memmap(file, dtype, "r").reshape(-1, d)` reads one from anywhere.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from aejax.data.activations_moments import Moments
from aejax.errors import UserError
from aejax.files import write_json

FILE = "index.json"
FORMAT = "aejax activations 1"
DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
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

    def hook(self, name: str) -> Hook:
        """A hook by its name.

        Raises:
          UserError: there is none of that name; names those that there are.
        """
        for hook in self.hooks:
            if hook.name == name:
                return hook
        there = ", ".join(hook.name for hook in self.hooks)
        raise UserError(f"no hook {name!r} in this store: it holds {there}")


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
    try:
        read = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{folder} is no activation store: it has no {FILE}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); write the store anew") from error
    try:
        if read["format"] != FORMAT:
            raise ValueError(f"format {read['format']!r}, this version reads {FORMAT!r}")
        tokens = int(read["tokens"])
        index = Index(
            hooks=tuple(_hook(entry, tokens) for entry in read["hooks"]),
            shards=tuple(
                Shard(int(s["tokens"]), tuple(s["files"]), tuple(s["sha256"]))
                for s in read["shards"]
            ),
            **{name: read[name] for name in ("complete", "appends", "offered")},
            **{name: read[name] for name in ("dropped", "limits", "settings")},
        )
        _check(index, tokens)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); write the store anew") from error
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
    (size,) = entry["shape"]
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"dtype {entry['dtype']!r}; there are {', '.join(DTYPES)}")
    mean = np.asarray(entry["mean"], np.float64)
    if mean.shape != (size,):
        raise ValueError(f"hook {entry['name']!r} of size {size} has a mean of {mean.shape}")
    moments = Moments(tokens, mean, float(entry["squares"]), float(entry["norms"]))
    return Hook(entry["name"], int(size), entry["dtype"], moments)


def _check(index: Index, tokens: int) -> None:
    if tokens != index.tokens or min((s.tokens for s in index.shards), default=1) < 1:
        raise ValueError(f"{tokens} tokens, its shards have {index.tokens}")
    for shard in index.shards:
        if not len(shard.files) == len(shard.sha256) == len(index.hooks):
            raise ValueError("a shard without a file for each hook")
        for name in shard.files:
            # A name that leads elsewhere would be read from there.
            if name != Path(name).name or not name.endswith(".bin"):
                raise ValueError(f"a shard in {name!r}")
    if not all(math.isfinite(hook.moments.squares) for hook in index.hooks):
        raise ValueError("a scale that is not finite")
