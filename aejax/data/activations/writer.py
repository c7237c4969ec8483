"""Writes a store of activations, append by append; a writer that was killed can be resumed.

with ActivationWriter(folder, provenance={"model": "gpt2", "revision": "e7da7f2"}) as writer:
    for i in range(writer.appends, len(texts)):        # continues after what is on the disk
        writer.append({"blocks.6": model(texts[i])})   # numpy, JAX or torch, [B, P, d]

`columns` stores integers for each token next to its activations, such as its id, so that the token
can be identified later:

        writer.append({"blocks.6": values}, columns={"token": ids, "document": numbers})
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aejax.checks import at_least
from aejax.data.activations.filter import TokenFilter, above
from aejax.data.activations.host import check_finite, host_rows, stored
from aejax.data.activations.index import (
    COLUMN,
    DTYPES,
    FILE,
    REASONS,
    Index,
    check_files,
    read_index,
    write_index,
)
from aejax.data.activations.pending import Pending
from aejax.errors import UserError
from aejax.files import as_json, lock_folder, unlock, writing


class ActivationWriter:
    """Appends the activations of the same tokens at one or several hooks to a store.

    An existing store is continued after the last append that is on the disk. Only one process at a
    time can write a store.

    Attributes:
      index: the record of the hooks, shards and tokens that are on the disk so far.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        provenance: Mapping[str, Any],
        filter: TokenFilter | None = None,
        dtype: str | None = None,
        shard_tokens: int = 2**18,
    ):
        """Opens the folder, or creates it.

        Args:
          folder: the folder of the store.
          provenance: the source of the activations, such as model, revision and data set, as JSON
            values.
          filter: which tokens not to store; by default all are stored.
          dtype: "float32", "float16" or "bfloat16"; by default the dtype of the first append
            (float64 becomes float32).
          shard_tokens: the number of tokens in a shard; the append that reaches it ends the shard.

        Raises:
          UserError: if the store was begun with other arguments, another process is writing it, or
            the folder cannot be written.
        """
        if dtype is not None and dtype not in DTYPES:
            raise UserError(f"dtype is {dtype!r}: give one of {', '.join(DTYPES)}")
        at_least(1, "shard_tokens", shard_tokens)
        self.folder = Path(folder).expanduser()
        self.filter = filter or TokenFilter()
        self.shard_tokens = shard_tokens
        self.dtype = dtype
        settings = {
            "provenance": provenance,
            "filter": self.filter.settings(),
            "dtype": dtype,
            "shard_tokens": shard_tokens,
        }
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._pending: Pending | None = None
        self._lock: int | None = lock_folder(self.folder)
        try:
            self.index = self._begun(as_json(settings))
        except BaseException:
            self.close()
            raise

    @property
    def appends(self) -> int:
        """The number of calls of `append` whose tokens are on the disk.

        A resumed writer must append the same data from this index on.
        """
        return self.index.appends

    def append(
        self,
        activations: Mapping[str, Any],
        mask: Any = None,
        positions: Any = None,
        columns: Mapping[str, Any] | None = None,
    ) -> None:
        """Appends the activations of some tokens to the store.

        Args:
          activations: hook -> [n, d] or [B, P, d], the same tokens for all hooks; arrays of numpy,
            JAX, torch or any library with `__array__` or `__dlpack__`.
          mask: bool [n] or [B, P], False for tokens not to store, such as padding.
          positions: the tokens' positions in their sequence, integers [n] or [B, P]; by default 0
            to P - 1.
          columns: name -> an integer for each token, [n] or [B, P], or for each sequence, [B], such
            as {"token": ids, "document": numbers}. If columns are given, known positions are stored
            too, as the column "position". Each append needs the same columns.

        Raises:
          UserError: if shapes, hooks or dtypes do not match, a token that mask and filter keep
            holds NaN or an infinity, or the disk is full. Nothing of this append is stored then.
        """
        if self._lock is None:
            raise UserError(f"the writer of {self.folder} is closed: open a new one to append more")
        call = self.index.appends + (self._pending.appends if self._pending else 0)
        rows, place = host_rows(activations, mask, positions, columns or {}, f"append {call}")
        self._check_hooks(rows, call)
        names = self._check_columns(columns, place, call)
        dropped: dict[str, int] = dict.fromkeys(REASONS, 0)
        rows, place = _keep(rows, place, place["mask"], dropped, "masked")
        if self.filter.first_positions:
            if place["position"] is None:
                raise UserError(
                    f"append {call} does not state the tokens' positions, which first_positions "
                    "needs: give [B, P, d], or give `positions`"
                )
            late = place["position"] >= self.filter.first_positions
            rows, place = _keep(rows, place, late, dropped, "position")
        if self.filter.tokens:
            ids = place.get("token")
            if ids is None:
                raise UserError(
                    f"append {call} does not state the tokens' ids, which the filter's `tokens` "
                    'needs: give columns={"token": ids}'
                )
            others = ~np.isin(ids, self.filter.tokens)
            rows, place = _keep(rows, place, others, dropped, "token")
        # This check comes after the mask, because padding may hold anything, and before the filter
        # by norm, which would drop an infinity without an error.
        for name, values in rows.items():
            check_finite(values, f"append {call}, hook {name!r}")
        limits = self._pending.limits if self._pending else self.index.limits
        limits = limits or self.filter.limits(rows)
        rows, place = _keep(rows, place, ~above(limits, rows), dropped, "norm")
        converted = {
            name: stored(values, self._dtype(name, values), f"append {call}, hook {name!r}")
            for name, values in rows.items()
        }
        offered = sum(dropped.values()) + len(next(iter(rows.values())))
        if self._pending is None:
            self._pending = Pending(self.folder, self.index)
        beside = {name: np.ascontiguousarray(place[name], COLUMN) for name in names}
        try:
            self._pending.add(converted, beside, limits, dropped, offered)
        except UserError:
            self.close()  # the disk is full and the shard holds only a piece of this append
            raise
        if self._pending.tokens >= self.shard_tokens:
            self._commit(complete=False)

    def finish(self) -> Index:
        """Ends the last shard, marks the store as complete and closes the writer.

        Returns:
          The index of the store.

        Raises:
          UserError: if the store would be empty, or the disk is full.
        """
        if self.index.tokens == 0 and (self._pending is None or self._pending.tokens == 0):
            raise UserError(f"{self.folder} would hold no token: append some before finishing it")
        self._commit(complete=True)
        self.close()
        return self.index

    def close(self) -> None:
        """Unlocks the folder without marking the store as complete.

        The tokens of an incomplete shard are discarded.
        """
        if self._pending is not None:
            self._pending.discard()
            self._pending = None
        if self._lock is not None:
            unlock(self._lock)
            self._lock = None

    def __enter__(self) -> ActivationWriter:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None and self._lock is not None:
            self.finish()
        elif self._lock is not None and self._pending is None and self.index.appends == 0:
            self._forget()
        self.close()

    def _forget(self) -> None:
        """Deletes the index of a store to which nothing was appended, and its folder if empty."""
        (self.folder / FILE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _begun(self, settings: dict[str, Any]) -> Index:
        """Returns the index of an existing store after checking it, or writes that of a new one."""
        for left in self.folder.glob(".*.partial"):
            left.unlink()
        if not (self.folder / FILE).exists():
            index = Index(settings=settings, dropped=dict.fromkeys(REASONS, 0))
            write_index(self.folder, index)  # from now on the folder is recognised as half-written
            return index
        index = read_index(self.folder)
        check_files(self.folder, index)
        for name, value in settings.items():
            if index.settings.get(name) != value:
                raise UserError(
                    f"{self.folder} was begun with {name} {index.settings.get(name)!r}, not "
                    f"{value!r}: give the same value or choose another folder"
                )
        return index

    def _check_hooks(self, rows: Mapping[str, np.ndarray], call: int) -> None:
        known = self._pending.hooks if self._pending else self.index.hooks
        there = {hook.name: hook.size for hook in known}
        brought = {name: values.shape[1] for name, values in rows.items()}
        if there and there != brought:
            raise UserError(
                f"append {call} has the hooks {brought}, but the store has {there}: append the "
                "same hooks in each call"
            )

    def _check_columns(
        self, columns: Mapping[str, Any] | None, place: Mapping[str, Any], call: int
    ) -> tuple[str, ...]:
        """Checks the columns of an append and returns their names, in the order of the store."""
        brought = tuple(columns or ())
        if columns and "position" not in columns and place["position"] is not None:
            brought = (*brought, "position")
        begun = self._pending.begun if self._pending else bool(self.index.hooks)
        known = self._pending.columns if self._pending else self.index.columns
        if begun and set(brought) != set(known):
            raise UserError(
                f"append {call} has the columns {list(brought)}, but the store has {list(known)}: "
                "append the same columns in each call"
            )
        if "mask" in brought:
            raise UserError("a column cannot be called 'mask': choose another name")
        return known if begun else brought

    def _dtype(self, name: str, values: np.ndarray) -> np.dtype:
        """Returns the dtype in which the values of hook `name` are stored.

        Raises:
          UserError: if the writer has no `dtype`, and the values have another dtype than those that
            were stored before.
        """
        known = {hook.name: hook.dtype for hook in self._pending.hooks} if self._pending else {}
        own = "float32" if values.dtype == np.float64 else values.dtype.name
        wanted = self.dtype or known.get(name, own)
        if self.dtype is None and wanted != own:
            raise UserError(
                f"hook {name!r} is stored as {wanted}, but {own} was appended: convert it, or give "
                "the writer of a new store a `dtype`"
            )
        return DTYPES[wanted]

    def _commit(self, complete: bool) -> None:
        with writing(self.folder):
            index = self._pending.committed() if self._pending else self.index
            self.index = dataclasses.replace(index, complete=complete)
            self._pending = None
            write_index(self.folder, self.index)


def _keep(rows, place, kept, dropped, reason):
    """Returns rows and place with the kept tokens only, and counts the others in dropped[reason].

    Args:
      rows: hook -> activations [n, d].
      place: the mask, the position and the columns of the n tokens by name, each [n] or None.
      kept: bool[n], or None to keep all tokens.
      dropped: reason -> the number of dropped tokens.
      reason: the reason for which the other tokens are dropped, one of REASONS.
    """
    if kept is None or kept.all():
        return rows, place
    dropped[reason] += int(len(kept) - kept.sum())
    place = {name: None if values is None else values[kept] for name, values in place.items()}
    return {name: values[kept] for name, values in rows.items()}, place
