"""Activations: a store on the disk, opened; its tokens as splits and batches for training.

store = activations("activations/gpt2")
train, validation, test = store.splits("blocks.6")
batches = TokenBatches(train, size=2048, seed=0)       # for aejax.loop
store.hook("blocks.6").moments.mean                    # to centre by; .scale to divide by
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from aejax.data.activations_index import DTYPES, FILE, Hook, Index, check_files, load
from aejax.data.activations_moments import ROWS, agree, empty, with_rows
from aejax.data.activations_order import pool_tokens, stream
from aejax.data.activations_tokens import Tokens
from aejax.data.batches import Batches
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
        del key
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
        return self.index.hook(name)

    def tokens(self, hook: str) -> Tokens:
        """All tokens of a hook, as an array [N, d] that is read where it is asked for."""
        found = self.index.hook(hook)
        which = self.hooks.index(hook)
        files = [(self.folder / shard.files[which], shard.tokens) for shard in self.index.shards]
        return Tokens(files, found.size, DTYPES[found.dtype])

    def memmap(self, hook: str, shard: int) -> np.memmap:
        """One shard of a hook, [tokens, d], mapped read-only: for looking at."""
        found, held = self.index.hook(hook), self.index.shards[shard]
        path = self.folder / held.files[self.hooks.index(hook)]
        return np.memmap(path, DTYPES[found.dtype], "r", shape=(held.tokens, found.size))

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
            sizes = {name: self.index.hook(name).size for name in group}
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


@dataclasses.dataclass(frozen=True, eq=False)
class TokenBatches(Batches):
    """The batches of a split of a store: `aejax.data.Batches`, shuffled in two levels.

    Stores up to `resident_limit` live on the device. Of a larger one each chunk of batches is read
    and sent to the device while the one before it is trained on; memory holds two pools. The order
    is the same either way: batch t is a function of (seed, t) and of `pool`.

    Attributes:
      pool: tokens that are shuffled together; `pool_tokens` is what that comes to.
    """

    pool: int = 65_536

    def __post_init__(self):
        Batches.__post_init__(self)
        if self.pool < 1:
            raise UserError(f"a pool of {self.pool} tokens: give 1 or more")
        for array in self.split.arrays.values():
            if isinstance(array, Tokens):
                array.reserve(2 * self.pool_tokens * (self.seeds or 1))

    @property
    def pool_tokens(self) -> int:
        """How many tokens are truly shuffled together: whole blocks, at most all."""
        return pool_tokens(len(self.split), self.pool)

    def provenance(self) -> dict[str, Any]:
        """What environment.json says of the data and its order, as plain values."""
        share = self.pool_tokens / len(self.split)
        return {**self.split.provenance(), "pool_tokens": self.pool_tokens, "pool_share": share}

    def rows(self, t: int, count: int) -> np.ndarray:
        """Token numbers of batches t to t + count - 1: i64[count, B] or i64[S, count, B]."""
        if t < 0:
            raise UserError(f"batch {t}: steps count from 0")
        members = [
            stream(len(self.split), self.seed + i, t * self.size, count * self.size, self.pool)
            for i in range(self.seeds or 1)
        ]
        rows = np.stack(members).reshape(-1, count, self.size)
        return rows[0] if self.seeds is None else rows

    @functools.cached_property
    def resident(self) -> dict[str, Array] | None:
        """All tokens on the device, leaves [N, d], or None where they are too many."""
        arrays = self.split.arrays
        held = sum(array.nbytes for array in arrays.values())
        if held > self.resident_limit or self._process[1] > 1:
            return None
        return jax.device_put({n: np.asarray(a) for n, a in arrays.items()}, self.sharding)

    def _stacked(self, t: int, chunk: int) -> Any:
        """Leaves [T, b, d], read and, where there is but one device, sent in the background."""
        arrays = Batches._stacked(self, t, chunk)
        return jax.device_put(arrays) if jax.device_count() == 1 else arrays
