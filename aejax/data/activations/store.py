"""Opens a store of activations and returns its tokens as splits for training.

store = activations("activations/gpt2")
train, validation, test = store.splits("blocks.6")
batches = TokenBatches(train, size=2048, seed=0)       # for aejax.loop
start = standardised(train)                            # uses the mean and scale of the whole store
quiet = store.norms("blocks.6") < 10 * np.median(store.norms("blocks.6"))
late = store.column("position") > 0                    # integers that were stored with the tokens
train, validation, test = store.splits("blocks.6", where=quiet & late)
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np

from aejax.data.activations.filter import norm
from aejax.data.activations.index import (
    COLUMN,
    DTYPES,
    FILE,
    Hook,
    Index,
    check_files,
    read_index,
)
from aejax.data.activations.tokens import Selected, Tokens
from aejax.data.moments import ROWS, agree, empty, with_rows
from aejax.data.split import Split
from aejax.errors import UserError
from aejax.files import file_sha256
from aejax.types import Array, Batch, Key

# One hook, whose batch is [B, d], or several for a crosscoder, whose batch is [B, hooks, d].
Hooks: TypeAlias = str | tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class FromHooks:
    """The function that turns the activations of hooks into a Batch.

    Two instances with equal fields are equal and hash alike, so a program is compiled once.
    """

    x: Hooks  # the hooks that the encoder reads
    target: Hooks  # the hooks that the decoder predicts
    context: Hooks | None = None  # the hooks that the decoder reads besides z, if any

    @property
    def transcodes(self) -> bool:
        """Whether the decoder predicts other hooks than the encoder reads."""
        return self.target != self.x

    def __call__(self, key: Key | None, arrays: Mapping[str, Array]) -> Batch:
        """Returns a Batch of the activations of B tokens.

        Args:
          key: not used.
          arrays: hook -> activations [B, d].

        Returns:
          A Batch whose arrays are f32[B, d], or f32[B, hooks, d] for several hooks.
        """
        x = _joined(arrays, self.x)

        def other(hooks: Hooks) -> Array:
            return x if hooks == self.x else _joined(arrays, hooks)

        return Batch(x, other(self.target), None if self.context is None else other(self.context))


def _joined(arrays: Mapping[str, Array], hooks: Hooks) -> Array:
    if isinstance(hooks, str):
        return jnp.asarray(arrays[hooks]).astype(jnp.float32)
    return jnp.stack([jnp.asarray(arrays[name]).astype(jnp.float32) for name in hooks], axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Activations:
    """A complete store: N tokens of one or several hooks."""

    folder: Path
    index: Index

    def __len__(self) -> int:
        return self.index.tokens

    @property
    def hooks(self) -> tuple[str, ...]:
        """The names of the hooks."""
        return tuple(hook.name for hook in self.index.hooks)

    def hook(self, name: str) -> Hook:
        """Returns the size, dtype and moments (mean, scale, gamma) of a hook.

        Raises:
          UserError: if there is no hook of that name.
        """
        for hook in self.index.hooks:
            if hook.name == name:
                return hook
        raise UserError(
            f"there is no hook {name!r} in {self.folder}: choose from {', '.join(self.hooks)}"
        )

    def tokens(self, hook: str) -> Tokens:
        """Returns all tokens of a hook as an array [N, d] whose rows are read when indexed."""
        found = self.hook(hook)
        which = self.hooks.index(hook)
        files = [(self.folder / shard.files[which], shard.tokens) for shard in self.index.shards]
        return Tokens(files, found.size, DTYPES[found.dtype])

    def column(self, name: str) -> np.ndarray:
        """Returns the integers stored for all tokens under a name such as "document", i32[N].

        Raises:
          UserError: if the store has no column of that name.
        """
        if name not in self.index.columns:
            there = ", ".join(self.index.columns) or "none"
            raise UserError(
                f"there is no column {name!r} in {self.folder} (columns: {there}): write "
                f"the store with append(..., columns={{{name!r}: ...}})"
            )
        which = len(self.hooks) + self.index.columns.index(name)
        files = [(self.folder / shard.files[which], shard.tokens) for shard in self.index.shards]
        return Tokens(files, 1, COLUMN).read(0, len(self))[:, 0]

    def norms(self, hook: str) -> np.ndarray:
        """Returns the norms of all tokens at a hook, f64[N], which reads the whole hook."""
        tokens = self.tokens(hook)
        parts = [norm(tokens[start : start + ROWS]) for start in range(0, len(tokens), ROWS)]
        return np.concatenate(parts)

    def split(
        self,
        x: str | Sequence[str],
        target: str | Sequence[str] | None = None,
        *,
        context: str | Sequence[str] | None = None,
        where: np.ndarray | None = None,
        start: int = 0,
        stop: int | None = None,
        part: str = "all",
    ) -> Split:
        """Returns the tokens start to stop - 1 as a Split for training or evaluation.

        Args:
          x: the hook that the encoder reads, or several hooks for a crosscoder.
          target: the hook or hooks to predict; by default x, for a transcoder another hook.
          context: the hook or hooks that the decoder reads besides z: x for a skip transcoder and
            for a dictionary that normalises each input. By default none.
          where: bool[N], whether to include each token of the store; by default all are included.
            `start` and `stop` are then indices among the included tokens.
          start: the index of the first token.
          stop: the index after the last token; by default the end of the store.
          part: the name of the split, such as "train".

        Returns:
          A Split whose x is f32[B, d], or f32[B, hooks, d] for several hooks.

        Raises:
          UserError: if a hook is unknown, hooks to be stacked differ in size, there is no token
            between start and stop, or `where` does not have one bool for each token.
        """
        rows = None if where is None else self._chosen(where)
        count = len(self) if rows is None else len(rows)
        stop = count if stop is None else stop
        if not 0 <= start < stop <= count:
            raise UserError(
                f"{self.folder} has no tokens from {start} to {stop}: choose 0 <= start < stop <= "
                f"{count}"
            )
        prepare = FromHooks(_hooks(x), _hooks(x if target is None else target), _hooks(context))
        roles = {"x": prepare.x, "target": prepare.target, "context": prepare.context}
        groups = {role: _names(hooks) for role, hooks in roles.items() if hooks is not None}
        names = sorted({name for group in groups.values() for name in group})
        for group in groups.values():
            sizes = {name: self.hook(name).size for name in group}
            if len(set(sizes.values())) != 1:
                raise UserError(
                    f"hooks of different sizes cannot be stacked: choose equal sizes ({sizes})"
                )
        hashes = [[s.files, s.sha256, s.tokens] for s in self.index.shards]
        digest = hashlib.sha256(json.dumps([names, hashes, self.hooks, start, stop]).encode())
        if rows is None:
            arrays = {name: self.tokens(name).between(start, stop) for name in names}
            known = {r: tuple(self.hook(n).moments for n in group) for r, group in groups.items()}
        else:
            digest.update(rows.tobytes())
            arrays = {name: Selected(self.tokens(name), rows[start:stop]) for name in names}
            known = None
        return Split(
            name=f"{self.folder.name}/{part}",
            arrays=arrays,  # type: ignore
            prepare=prepare,
            fingerprint=digest.hexdigest(),
            origin=f"activations of {json.dumps(self.index.settings.get('provenance'))}",
            stored_moments=known,
            facts=facts(prepare.x, prepare.target, self.index.settings.get("provenance")),
        )

    def splits(
        self,
        x: str | Sequence[str],
        target: str | Sequence[str] | None = None,
        *,
        context: str | Sequence[str] | None = None,
        where: np.ndarray | None = None,
        validation: float = 0.05,
        test: float = 0.05,
    ) -> tuple[Split, Split, Split]:
        """Divides the store into train, validation and test, each made of consecutive tokens.

        The tokens are not shuffled first, so that the three splits contain different texts (except
        for one text at each border).

        Args:
          x: the hook that the encoder reads, or several hooks for a crosscoder.
          target: the hook or hooks to predict; by default x, for a transcoder another hook.
          context: the hook or hooks that the decoder reads besides z: x for a skip transcoder.
          where: bool[N], whether to include each token of the store; by default all are included.
          validation: the share (below 1) or the number of the tokens, which follow those of train.
          test: the share (below 1) or the number of the tokens, the last ones of the store.

        Raises:
          UserError: if a hook is unknown, hooks to be stacked differ in size, a split would be
            empty, or `validation` or `test` is neither a share nor an integer.
        """
        for name, share in {"validation": validation, "test": test}.items():
            if not (0 < share < 1 or (share >= 1 and share % 1 == 0)):
                raise UserError(
                    f"{name} is {share}: give a share between 0 and 1, or an integer number of "
                    "tokens"
                )
        count = len(self) if where is None else len(self._chosen(where))
        held = [round(s * count) if s < 1 else int(s) for s in (validation, test)]
        cuts = [0, count - sum(held), count - held[1], count]
        parts = zip(("train", "validation", "test"), itertools.pairwise(cuts), strict=True)
        how = {"context": context, "where": where}
        made = [self.split(x, target, start=a, stop=b, part=part, **how) for part, (a, b) in parts]
        return made[0], made[1], made[2]

    def _chosen(self, where: Any) -> np.ndarray:
        """Returns the indices of the tokens for which `where` is True, i64[n]."""
        chosen = np.asarray(where)
        if chosen.dtype != bool or chosen.shape != (len(self),):
            raise UserError(
                f"`where` has dtype {chosen.dtype} and shape {chosen.shape}: give one bool for "
                f"each of the {len(self)} tokens of {self.folder}"
            )
        return np.flatnonzero(chosen)

    def verify(self) -> None:
        """Checks all shards against the hashes and moments in the index; it reads the whole store.

        Raises:
          UserError: if a file differs from the index; the message names the first such file.
        """
        check_files(self.folder, self.index)
        for shard in self.index.shards:
            for name, sha256 in zip(shard.files, shard.sha256, strict=True):
                if file_sha256(self.folder / name) != sha256:
                    raise UserError(
                        f"{self.folder / name} is damaged (its sha256 differs): restore it, or "
                        "delete the store and write it again"
                    )
        # The hashes do not cover the index: if its dtype was edited, the same bytes would be read
        # as other numbers. Comparing the moments detects this.
        for hook in self.index.hooks:
            tokens, found = self.tokens(hook.name), empty(hook.size)
            with np.errstate(all="ignore"):  # bytes read in a wrong dtype may overflow
                for start in range(0, len(tokens), ROWS):
                    found = with_rows(found, tokens[start : start + ROWS])
                if not agree(hook.moments, found):
                    raise UserError(
                        f"{self.folder / FILE} is damaged ('mean', 'squares', 'norms' or 'dtype' "
                        f"of hook {hook.name!r} does not agree with the shards): restore it, or "
                        "delete the store and write it again"
                    )


def _hooks(hooks: str | Sequence[str] | None) -> Any:
    """Returns a sequence of hooks as a tuple, which can be hashed; a string or None unchanged."""
    return hooks if hooks is None or isinstance(hooks, str) else tuple(hooks)


def facts(x: Hooks, target: Hooks, provenance: Any) -> dict[str, Any]:
    """Returns the entries of environment.json that describe a split of activations.

    Args:
      x: the hook or hooks that the encoder reads.
      target: the hook or hooks to predict.
      provenance: the model and data from which the activations came, as JSON values.
    """
    return {"activations": {"x": x, "target": target, "provenance": provenance}}


def _names(hooks: Hooks) -> tuple[str, ...]:
    return (hooks,) if isinstance(hooks, str) else hooks


def activations(folder: str | Path) -> Activations:
    """Opens a store that an `ActivationWriter` has finished.

    Raises:
      UserError: if there is no store, it is half-written or damaged, or files are missing.
    """
    folder = Path(folder).expanduser()
    index = read_index(folder)
    if not index.complete:
        raise UserError(
            f"{folder} is half-written, with {index.tokens} tokens of {index.appends} appends: "
            "start its writer again, which continues from there, or delete the folder"
        )
    check_files(folder, index)
    return Activations(folder, index)
