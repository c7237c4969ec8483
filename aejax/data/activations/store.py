"""Activations: a store on the disk, opened; its tokens as splits and batches for training.

store = activations("activations/gpt2")
train, validation, test = store.splits("blocks.6")
batches = TokenBatches(train, size=2048, seed=0)       # for aejax.loop
store.hook("blocks.6").moments.mean                    # to centre by; .scale to divide by
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np

from aejax.data.activations.index import DTYPES, FILE, Hook, Index, check_files, load
from aejax.data.activations.moments import ROWS, agree, empty, with_rows
from aejax.data.activations.tokens import Tokens
from aejax.data.split import Split
from aejax.errors import UserError
from aejax.files import file_sha256
from aejax.types import Array, Batch, Key

# One hook, [B, d], or several side by side for a crosscoder, [B, hooks, d].
Hooks: TypeAlias = str | tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class FromHooks:
    """Rows of hooks become a Batch; two with equal fields are equal, so that they compile once."""

    x: Hooks
    target: Hooks

    def __call__(self, key: Key | None, arrays: Mapping[str, Array]) -> Batch:
        """Leaves [B, d], as they are stored, -> x and target f32[B, d] or f32[B, hooks, d]."""
        x = _joined(arrays, self.x)
        return Batch(x, x if self.target == self.x else _joined(arrays, self.target))


def _joined(arrays: Mapping[str, Array], hooks: Hooks) -> Array:
    if isinstance(hooks, str):
        return jnp.asarray(arrays[hooks]).astype(jnp.float32)
    return jnp.stack([jnp.asarray(arrays[name]).astype(jnp.float32) for name in hooks], axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Activations:
    """A whole store: N tokens of one or several hooks."""

    folder: Path
    index: Index

    def __len__(self) -> int:
        return self.index.tokens

    @property
    def hooks(self) -> tuple[str, ...]:
        """The names of the hooks."""
        return tuple(hook.name for hook in self.index.hooks)

    def hook(self, name: str) -> Hook:
        """Size, dtype and moments (mean, scale, gamma) of a hook.

        Raises:
          UserError: there is none of that name.
        """
        for hook in self.index.hooks:
            if hook.name == name:
                return hook
        raise UserError(f"no hook {name!r} in this store: it holds {', '.join(self.hooks)}")

    def tokens(self, hook: str) -> Tokens:
        """All tokens of a hook, as an array [N, d] that is read where it is asked for."""
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
        """Tokens start to stop - 1 as a Split.

        Args:
          x: the hook that the encoder sees, or several for a crosscoder.
          target: what is to be explained: by default x; another hook for a transcoder.
          start: the first token.
          stop: the token to stop before; by default the end.
          part: names the split.

        Returns:
          A Split whose x is f32[B, d], or f32[B, hooks, d] for several hooks.

        Raises:
          UserError: an unknown hook, hooks of different size together, or no token.
        """
        stop = len(self) if stop is None else stop
        if not 0 <= start < stop <= len(self):
            raise UserError(f"{self.folder}: tokens {start} to {stop} of {len(self)}: none is left")
        seen = x if isinstance(x, str) else tuple(x)
        wanted = seen if target is None else target if isinstance(target, str) else tuple(target)
        names = sorted({*_names(seen), *_names(wanted)})
        for group in (_names(seen), _names(wanted)):
            sizes = {name: self.hook(name).size for name in group}
            if len(set(sizes.values())) != 1:
                raise UserError(f"hooks of different size cannot stand side by side: {sizes}")
        hashes = [[s.files, s.sha256, s.tokens] for s in self.index.shards]
        content = json.dumps([names, hashes, self.hooks, start, stop])
        return Split(
            name=f"{self.folder.name}/{part}",
            arrays={name: self.tokens(name).part(start, stop) for name in names},  # type: ignore
            prepare=FromHooks(seen, wanted),
            fingerprint=hashlib.sha256(content.encode()).hexdigest(),
            origin=f"activations of {json.dumps(self.index.settings.get('provenance'))}",
        )

    def splits(
        self,
        x: str | Sequence[str],
        target: str | Sequence[str] | None = None,
        *,
        validation: float = 0.05,
        test: float = 0.05,
    ) -> tuple[Split, Split, Split]:
        """Train, validation and test: neighbouring tokens, so that no text is in two of them.

        Args:
          x: as for `split`.
          target: as for `split`.
          validation: share (below 1) or number of the tokens, after train's.
          test: share (below 1) or number of the tokens, the last ones.

        Raises:
          UserError: as for `split`, and no share or number.
        """
        for name, share in {"validation": validation, "test": test}.items():
            if not (0 < share < 1 or (share >= 1 and share % 1 == 0)):
                raise UserError(
                    f"{name} {share}: give a share between 0 and 1 or a whole number of tokens"
                )
        held = [round(s * len(self)) if s < 1 else int(s) for s in (validation, test)]
        cuts = [0, len(self) - sum(held), len(self) - held[1], len(self)]
        parts = zip(("train", "validation", "test"), itertools.pairwise(cuts), strict=True)
        made = [self.split(x, target, start=a, stop=b, part=part) for part, (a, b) in parts]
        return made[0], made[1], made[2]

    def verify(self) -> None:
        """Compares every shard with its hash and moments, which reads the whole store.

        Raises:
          UserError: names the first file that differs.
        """
        check_files(self.folder, self.index)
        for shard in self.index.shards:
            for name, sha256 in zip(shard.files, shard.sha256, strict=True):
                if file_sha256(self.folder / name) != sha256:
                    raise UserError(
                        f"{self.folder / name} is damaged (its sha256 differs): restore it or "
                        "write the store anew"
                    )
        # Hashes are of bytes: a dtype that was edited reads other numbers from the same ones.
        for hook in self.index.hooks:
            tokens, found = self.tokens(hook.name), empty(hook.size)
            with np.errstate(all="ignore"):  # such numbers may be anything
                for start in range(0, len(tokens), ROWS):
                    found = with_rows(found, tokens[start : start + ROWS])
                if not agree(hook.moments, found):
                    raise UserError(
                        f"{self.folder / FILE} is damaged ('mean', 'squares', 'norms' or 'dtype' "
                        f"of hook {hook.name!r} is not its shards'): restore it or write the store "
                        "anew"
                    )


def _names(hooks: Hooks) -> tuple[str, ...]:
    return (hooks,) if isinstance(hooks, str) else hooks


def activations(folder: str | Path) -> Activations:
    """Opens a store that an `ActivationWriter` finished.

    Raises:
      UserError: no store, one that is half-written or damaged, files missing or cut.
    """
    folder = Path(folder).expanduser()
    index = load(folder)
    if not index.complete:
        raise UserError(
            f"{folder} is half-written: {index.tokens} tokens of {index.appends} appends; start "
            "its writer again, which goes on from there, or delete the folder"
        )
    check_files(folder, index)
    return Activations(folder, index)
