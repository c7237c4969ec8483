"""Activations: an opened store of activations, and its tokens as splits for training.

store = activations("activations/gpt2")
train, validation, test = store.splits("blocks.6")
batches = TokenBatches(train, size=2048, seed=0)       # for aejax.loop
store.hook("blocks.6").moments.mean                    # centre by this; then divide by .scale
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

from aejax.data.activations.index import DTYPES, FILE, Hook, Index, check_files, read_index
from aejax.data.activations.moments import ROWS, agree, empty, with_rows
from aejax.data.activations.tokens import Tokens
from aejax.data.split import Split
from aejax.errors import UserError
from aejax.files import file_sha256
from aejax.types import Array, Batch, Key

# One hook, whose batch is [B, d], or several for a crosscoder, whose batch is [B, hooks, d].
Hooks: TypeAlias = str | tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class FromHooks:
    """Turns rows of hooks into a Batch.

    Two instances with equal fields are equal and hash alike, so a program is compiled once.
    """

    x: Hooks  # what the encoder sees
    target: Hooks  # what the decoder predicts

    def __call__(self, key: Key | None, arrays: Mapping[str, Array]) -> Batch:
        """Makes x and target, f32[B, d] or f32[B, hooks, d], from stored leaves [B, d]."""
        x = _joined(arrays, self.x)
        return Batch(x, x if self.target == self.x else _joined(arrays, self.target))


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

    def split(
        self,
        x: str | Sequence[str],
        target: str | Sequence[str] | None = None,
        *,
        start: int = 0,
        stop: int | None = None,
        part: str = "all",
    ) -> Split:
        """Returns the tokens start to stop - 1 as a Split.

        Args:
          x: the hook that the encoder sees, or several hooks for a crosscoder.
          target: the hook or hooks to predict; by default x, for a transcoder another hook.
          start: the first token.
          stop: the token to stop before; by default the end of the store.
          part: the name of the split, such as "train".

        Returns:
          A Split whose x is f32[B, d], or f32[B, hooks, d] for several hooks.

        Raises:
          UserError: if a hook is unknown, hooks to be stacked differ in size, or there is no token
            between start and stop.
        """
        stop = len(self) if stop is None else stop
        if not 0 <= start < stop <= len(self):
            raise UserError(
                f"{self.folder} has no tokens from {start} to {stop}: choose 0 <= start < stop <= "
                f"{len(self)}"
            )
        seen = x if isinstance(x, str) else tuple(x)
        wanted = seen if target is None else target if isinstance(target, str) else tuple(target)
        names = sorted({*_names(seen), *_names(wanted)})
        for group in (_names(seen), _names(wanted)):
            sizes = {name: self.hook(name).size for name in group}
            if len(set(sizes.values())) != 1:
                raise UserError(
                    f"hooks of different sizes cannot be stacked: choose equal ones ({sizes})"
                )
        hashes = [[s.files, s.sha256, s.tokens] for s in self.index.shards]
        content = json.dumps([names, hashes, self.hooks, start, stop])
        return Split(
            name=f"{self.folder.name}/{part}",
            arrays={name: self.tokens(name).between(start, stop) for name in names},  # type: ignore
            prepare=FromHooks(seen, wanted),
            fingerprint=hashlib.sha256(content.encode()).hexdigest(),
            origin=f"activations of {json.dumps(self.index.settings.get('provenance'))}",
            facts=facts(seen, wanted, self.index.settings.get("provenance")),
        )

    def splits(
        self,
        x: str | Sequence[str],
        target: str | Sequence[str] | None = None,
        *,
        validation: float = 0.05,
        test: float = 0.05,
    ) -> tuple[Split, Split, Split]:
        """Divides the store into train, validation and test, each made of consecutive tokens.

        The tokens are not shuffled first, so that the texts of the three splits are different
        (but for one text at each border).

        Args:
          x: the hook that the encoder sees, or several hooks for a crosscoder.
          target: the hook or hooks to predict; by default x, for a transcoder another hook.
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
        held = [round(s * len(self)) if s < 1 else int(s) for s in (validation, test)]
        cuts = [0, len(self) - sum(held), len(self) - held[1], len(self)]
        parts = zip(("train", "validation", "test"), itertools.pairwise(cuts), strict=True)
        made = [self.split(x, target, start=a, stop=b, part=part) for part, (a, b) in parts]
        return made[0], made[1], made[2]

    def verify(self) -> None:
        """Checks every shard against its hash and moments, which reads the whole store.

        Raises:
          UserError: if a file differs; it names the first one.
        """
        check_files(self.folder, self.index)
        for shard in self.index.shards:
            for name, sha256 in zip(shard.files, shard.sha256, strict=True):
                if file_sha256(self.folder / name) != sha256:
                    raise UserError(
                        f"{self.folder / name} is damaged (its sha256 differs): restore it, or "
                        "delete the store and write it again"
                    )
        # The hashes do not cover the index: with an edited dtype, the same bytes would be read as
        # other numbers. The moments reveal that.
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


def facts(x: Hooks, target: Hooks, provenance: Any) -> dict[str, Any]:
    """Returns what environment.json records of a split of activations.

    Args:
      x: the hook or hooks that the encoder sees.
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
