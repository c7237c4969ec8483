"""The shard being written: hidden files, which are renamed when the shard is complete."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from aejax.data.activations.index import Hook, Index, Shard, file_name
from aejax.data.moments import Moments, empty, with_rows
from aejax.files import sync, writing


class _File(NamedTuple):
    """A file of the shard, which holds the activations of a hook or the integers of a column."""

    name: str  # the name of the hook or column
    file: BinaryIO
    digest: Any
    moments: Moments | None  # the moments of the hook's tokens; None for a column


class Pending:
    """The appends since the last complete shard: their files, hashes, moments and counts."""

    def __init__(self, folder: Path, index: Index):
        self.folder, self.index, self.hooks = folder, index, index.hooks
        self.columns: tuple[str, ...] = index.columns
        self.limits: Mapping[str, float] = index.limits
        self.appends = self.offered = self.tokens = 0
        self.dropped = dict(index.dropped)
        self._files: list[_File] = []

    @property
    def begun(self) -> bool:
        """Whether the hooks and columns of the store are known, which the first append defines."""
        return bool(self.hooks)

    def add(
        self,
        rows: Mapping[str, np.ndarray],
        columns: Mapping[str, np.ndarray],
        limits: Mapping[str, float],
        dropped: Mapping[str, int],
        offered: int,
    ) -> None:
        """Adds the tokens of one append to the shard's files.

        Args:
          rows: hook -> [n, d], in the dtype of the store.
          columns: column -> i32[n].
          limits: hook -> the largest norm that is kept.
          dropped: reason -> the number of dropped tokens.
          offered: the number of tokens including dropped ones.

        Raises:
          UserError: if the disk is full; the pending shard must then be discarded.
        """
        self.limits = limits
        with writing(self.folder):
            if not self.hooks:
                self.columns = tuple(columns)
                self.hooks = tuple(
                    Hook(name, values.shape[1], values.dtype.name, empty(values.shape[1]))
                    for name, values in rows.items()
                )
            if not self._files:
                found = [(hook.name, hook.moments) for hook in self.hooks]
                for i, (name, moments) in enumerate([*found, *((c, None) for c in self.columns)]):
                    file = self._partial(i).open("wb")
                    self._files.append(_File(name, file, hashlib.sha256(), moments))
            for i, (name, file, digest, moments) in enumerate(self._files):
                values = columns[name] if moments is None else rows[name]
                content = np.ascontiguousarray(values)
                file.write(content.view(np.uint8).data)
                digest.update(content.view(np.uint8).data)
                if moments is not None:
                    self._files[i] = _File(name, file, digest, with_rows(moments, content))
        self.tokens += len(next(iter(rows.values())))
        self.appends += 1
        self.offered += offered
        self.dropped = {name: count + dropped[name] for name, count in self.dropped.items()}

    def committed(self) -> Index:
        """Renames the files to their final names, and returns the store's index with this shard.

        The index is not written.
        """
        index, shards = self.index, list(self.index.shards)
        hooks = []
        if self.tokens:
            names, hashes = [], []
            for i, (name, file, digest, moments) in enumerate(self._files):
                file.close()
                sync(self._partial(i))
                names.append(file_name(f"{i}.{name}", len(shards)))
                self._partial(i).replace(self.folder / names[-1])
                hashes.append(digest.hexdigest())
                if moments is not None:
                    hooks.append(self.hooks[i]._replace(moments=moments))
            sync(self.folder)
            shards.append(Shard(self.tokens, tuple(names), tuple(hashes)))
        else:
            self.discard()
        return dataclasses.replace(
            index,
            hooks=tuple(hooks) or index.hooks,
            columns=self.columns if hooks else index.columns,
            shards=tuple(shards),
            appends=index.appends + self.appends,
            offered=index.offered + self.offered,
            dropped=self.dropped,
            limits=self.limits,
        )

    def discard(self) -> None:
        """Deletes the files of this shard."""
        for i, written in enumerate(self._files):
            written.file.close()
            self._partial(i).unlink(missing_ok=True)

    def _partial(self, number: int) -> Path:
        return self.folder / f".{number}.partial"
