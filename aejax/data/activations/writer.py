"""Writing activations: any producer appends, shards and index are whole or not there.

with ActivationWriter(folder, provenance={"model": "gpt2", "revision": "e7da7f2"}) as writer:
    for i in range(writer.appends, len(texts)):        # after a kill: from the first one lost
        writer.append({"blocks.6": model(texts[i])})   # numpy, JAX or torch, [B, P, d]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aejax.checks import at_least
from aejax.data.activations.filter import TokenFilter, above
from aejax.data.activations.host import check_finite, host, stored
from aejax.data.activations.index import DTYPES, FILE, REASONS, Index, check_files, load, save
from aejax.data.activations.pending import Pending
from aejax.errors import UserError
from aejax.files import lock_folder, plain, unlock, writing


class ActivationWriter:
    """Appends activations of one or several hooks, token by token aligned, to a store.

    A store that is there is continued: after the last append that reached the disk where it is
    half-written, after its end where it is whole. Only one process can write a store.

    Attributes:
      index: what is on the disk so far.
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
        """Opens the folder, which is made where it does not exist.

        Args:
          folder: of the store.
          provenance: what the activations are of, as plain values: model, revision, data set.
          filter: the tokens to leave out; by default none.
          dtype: "float32", "float16" or "bfloat16"; by default what the first append brings
            (float64 becomes float32).
          shard_tokens: a shard is closed by the append that brings it to so many tokens.

        Raises:
          UserError: a store that was begun otherwise, another process, an unwritable folder.
        """
        if dtype is not None and dtype not in DTYPES:
            raise UserError(f"dtype {dtype!r}: give one of {', '.join(DTYPES)}")
        at_least(1, "shard_tokens", shard_tokens)
        self.folder = Path(folder).expanduser()
        self.filter = filter or TokenFilter()
        self.shard_tokens = shard_tokens
        self.dtype = dtype
        settings = {
            "provenance": provenance,
            "filter": dataclasses.asdict(self.filter),
            "dtype": dtype,
            "shard_tokens": shard_tokens,
        }
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._pending: Pending | None = None
        self._lock: int | None = lock_folder(self.folder)
        try:
            self.index = self._begun(plain(settings))
        except BaseException:
            self.close()
            raise

    @property
    def appends(self) -> int:
        """Calls of `append` whose tokens are on the disk: where a producer goes on."""
        return self.index.appends

    def append(
        self, activations: Mapping[str, Any], mask: Any = None, positions: Any = None
    ) -> None:
        """Adds tokens.

        Args:
          activations: hook -> [n, d] or [B, P, d] of numpy, JAX, torch or anything with
            `__array__` or `__dlpack__`; the same tokens for all hooks.
          mask: bool [n] or [B, P], False for tokens to leave out, such as padding.
          positions: integers [n] or [B, P] in the sequence; by default 0 to P - 1.

        Raises:
          UserError: shapes, hooks or dtypes that do not fit, NaN or an infinity in a token that
            neither mask nor position leaves out, a full disk; nothing of this append is stored
            then.
        """
        if self._lock is None:
            raise UserError(f"the writer of {self.folder} is closed: open another one")
        call = self.index.appends + (self._pending.appends if self._pending else 0)
        rows, place = host(activations, mask, positions, f"append {call}")
        self._check_hooks(rows, call)
        dropped: dict[str, int] = dict.fromkeys(REASONS, 0)
        rows, place = _keep(rows, place, place["mask"], dropped, "masked")
        if self.filter.first_positions:
            if place["position"] is None:
                raise UserError(
                    f"append {call}: first_positions needs [B, P, d], or the positions of [n, d]"
                )
            late = place["position"] >= self.filter.first_positions
            rows, place = _keep(rows, place, late, dropped, "position")
        # Before the filter of norms, which would drop an infinity. Padding may hold anything.
        for name, values in rows.items():
            check_finite(values, f"append {call}, hook {name!r}")
        limits = self._pending.limits if self._pending else self.index.limits
        limits = limits or self.filter.limits(rows)
        rows, _ = _keep(rows, place, ~above(limits, rows), dropped, "norm")
        converted = {
            name: stored(values, self._dtype(name, values), f"append {call}, hook {name!r}")
            for name, values in rows.items()
        }
        offered = sum(dropped.values()) + len(next(iter(rows.values())))
        if self._pending is None:
            self._pending = Pending(self.folder, self.index)
        try:
            self._pending.add(converted, limits, dropped, offered)
        except UserError:
            self.close()  # a full disk: the shard holds a piece of this append
            raise
        if self._pending.tokens >= self.shard_tokens:
            self._commit(complete=False)

    def finish(self) -> Index:
        """Closes the last shard and declares the store whole.

        Raises:
          UserError: the store would be empty, or the disk is full.
        """
        if self.index.tokens == 0 and (self._pending is None or self._pending.tokens == 0):
            raise UserError(f"{self.folder} would hold no token: append some before it is finished")
        self._commit(complete=True)
        self.close()
        return self.index

    def close(self) -> None:
        """Lets go of the folder; what is not in a shard yet is lost, and the store half-written."""
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
        self.close()

    def _begun(self, settings: dict[str, Any]) -> Index:
        """The index of a store that is there, checked, or that of a new one."""
        for left in self.folder.glob(".*.partial"):
            left.unlink()
        if not (self.folder / FILE).exists():
            index = Index(settings=settings, dropped=dict.fromkeys(REASONS, 0))
            save(self.folder, index)  # so that a folder with nothing yet is known as half-written
            return index
        index = load(self.folder)
        check_files(self.folder, index)
        for name, value in settings.items():
            if index.settings.get(name) != value:
                raise UserError(
                    f"{self.folder} was begun with {name} {index.settings.get(name)!r}, not "
                    f"{value!r}: give the same or choose another folder"
                )
        return index

    def _check_hooks(self, rows: Mapping[str, np.ndarray], call: int) -> None:
        known = self._pending.hooks if self._pending else self.index.hooks
        there = {hook.name: hook.size for hook in known}
        brought = {name: values.shape[1] for name, values in rows.items()}
        if there and there != brought:
            raise UserError(
                f"append {call} has hooks {brought}, the store {there}: bring the same, all at once"
            )

    def _dtype(self, name: str, values: np.ndarray) -> np.dtype:
        """The dtype to store; one that was not asked for must not change on the way."""
        known = {hook.name: hook.dtype for hook in self._pending.hooks} if self._pending else {}
        own = "float32" if values.dtype == np.float64 else values.dtype.name
        wanted = self.dtype or known.get(name, own)
        if self.dtype is None and wanted != own:
            raise UserError(
                f"hook {name!r} is stored as {wanted}, but {own} was appended: convert it, or "
                "begin the store with a dtype"
            )
        return DTYPES[wanted]

    def _commit(self, complete: bool) -> None:
        with writing(self.folder):
            index = self._pending.committed() if self._pending else self.index
            self.index = dataclasses.replace(index, complete=complete)
            self._pending = None
            save(self.folder, self.index)


def _keep(rows, place, kept, dropped, reason):
    """Rows and places where `kept` bool[n] holds (None: all); counts the others as dropped."""
    if kept is None or kept.all():
        return rows, place
    dropped[reason] += int(len(kept) - kept.sum())
    place = {name: None if values is None else values[kept] for name, values in place.items()}
    return {name: values[kept] for name, values in rows.items()}, place
