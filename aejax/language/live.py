"""Training on activations that are not stored on disk but computed when a batch needs them.

    split = live(read, rows, {"resid_post.15": 576}, "resid_post.15", passes=16, ...)
    batches = TokenBatches(split, size=2_048, seed=0, pool=65_536, resident_limit=0)

`TokenBatches` shuffles this split like a store on the disk: it shuffles blocks of neighbouring
tokens over the whole corpus, then the tokens within each group of `pool` tokens, called a pool.
Batch t is therefore a function of (seed, t), and a run resumes without a saved buffer. Memory holds
the token ids of the corpus and the activations of two pools.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from aejax.data.activations.store import FromHooks, Hooks, facts
from aejax.data.split import Split
from aejax.errors import UserError
from aejax.language.packing import Packed
from aejax.language.reading import Read


class Live:
    """The activations of a corpus, computed on demand, with a cache of the last used rows."""

    def __init__(self, read: Read, rows: Packed, passes: int, first_positions: int):
        """Stores the arguments; the model runs only when activations are requested.

        Args:
          read: the function that `reader` returned; each of its values is [B, P, d].
          rows: the tokenised rows of the whole corpus.
          passes: the number of rows in one forward pass.
          first_positions: the number of tokens to leave out at the start of every row, because they
            may be attention sinks.
        """
        self.read, self.rows, self.passes = read, rows, passes
        self.where = np.flatnonzero(rows.position.reshape(-1) >= first_positions)
        if not len(self.where):
            raise UserError(
                "no token is left to train on: the rows hold nothing but padding and the first "
                f"{first_positions} positions, which are left out"
            )
        shape = jax.ShapeDtypeStruct((passes, rows.tokens.shape[1]), np.int32)
        self.shapes = jax.eval_shape(read, shape, shape)
        self._held: OrderedDict[int, dict[str, np.ndarray]] = OrderedDict()  # row -> its values
        self._most = passes
        self._lock = threading.Lock()

    @property
    def tokens(self) -> int:
        """The number of tokens N, not counting padding and the first positions of the rows."""
        return len(self.where)

    def reserve(self, tokens: int) -> None:
        """Enlarges the cache so that it holds the rows of at least `tokens` tokens."""
        # The factor 2 allows for rows whose tokens belong to two neighbouring blocks.
        mean = self.tokens / len(self.rows.tokens)
        self._most = max(self._most, int(2 * tokens / mean) + 2 * self.passes)

    def gather(self, hook: str, flat: np.ndarray) -> np.ndarray:
        """Returns a hook's values [n, d] for the tokens with the indices `flat`, i64[n]."""
        row, column = np.divmod(self.where[flat], self.rows.tokens.shape[1])
        order = np.argsort(row, kind="stable")
        needed, starts = np.unique(row[order], return_index=True)
        shape = self.shapes[hook]
        values = np.empty((len(flat), shape.shape[-1]), shape.dtype)
        with self._lock:
            self._run([r for r in needed.tolist() if r not in self._held])
            for r, places in zip(needed.tolist(), np.split(order, starts[1:]), strict=True):
                self._held.move_to_end(r)
                values[places] = self._held[r][hook][column[places]]
            while len(self._held) > self._most:
                self._held.popitem(last=False)
        return values

    def _run(self, rows: list[int]) -> None:
        for start in range(0, len(rows), self.passes):
            some = rows[start : start + self.passes]
            # All passes have one shape, so the program is compiled once.
            padded = some + some[-1:] * (self.passes - len(some))
            seen = self.read(self.rows.tokens[padded], self.rows.position[padded])
            for hook, values in seen.items():
                for r, value in zip(some, np.asarray(values), strict=False):
                    self._held.setdefault(r, {})[hook] = value


class LiveTokens:
    """The values at one hook of tokens `start` to `stop` - 1, indexed like an array [N, d]."""

    ndim = 2

    def __init__(self, source: Live, hook: str, start: int, stop: int):
        self.source, self.hook, self.start = source, hook, start
        self.dtype = np.dtype(source.shapes[hook].dtype)
        self.shape = (stop - start, source.shapes[hook].shape[-1])

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """The number of bytes that all values would take in memory."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def reserve(self, tokens: int) -> None:
        """Enlarges the cache so that it holds the rows of at least `tokens` tokens."""
        self.source.reserve(tokens)

    def __getitem__(self, indices: Any) -> np.ndarray:
        """Returns the values [..., d] of the tokens with the given indices, a slice or int[...]."""
        if isinstance(indices, slice):
            indices = np.arange(*indices.indices(len(self)))
        wanted = np.asarray(indices, np.int64)
        found = self.source.gather(self.hook, wanted.reshape(-1) + self.start)
        return found.reshape(*wanted.shape, self.shape[1])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy
        return self[:].astype(dtype or self.dtype, copy=False)


def live(
    read: Read,
    batches: Iterable[Packed],
    x: Hooks,
    target: Hooks | None = None,
    *,
    context: Hooks | None = None,
    provenance: Mapping[str, Any],
    first_positions: int = 0,
    passes: int = 16,
) -> Split:
    """Returns a split of a corpus' tokens, whose activations are computed during training.

    Args:
      read: the function that `reader` returned; it must read all hooks of x, target and context.
      batches: all batches that `packs` yields for the corpus.
      x: the hook whose values the encoder reads; several hooks for a crosscoder.
      target: the hook whose values are reconstructed, which for a transcoder is not x; None means
        x.
      context: the hook or hooks whose values the decoder reads besides z: x for a skip transcoder;
        None means none.
      provenance: the model, corpus and packing, and all else that the values depend on, as JSON
        values.
      first_positions: the number of tokens to leave out at the start of every row; 1 leaves out an
        attention sink.
      passes: the number of rows in one forward pass.

    Returns:
      A Split for `TokenBatches`. Give `TokenBatches` a `resident_limit` below the size of the
      activations; otherwise it computes all of them at once and keeps them on the device.

    Raises:
      UserError: if no token is left, or `read` does not read one of the hooks.
    """
    rows = Packed(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))
    source = Live(read, rows, passes, first_positions)
    wanted = x if target is None else target
    names = sorted({*_names(x), *_names(wanted), *_names(context or ())})
    for name in names:
        if name not in source.shapes:
            raise UserError(
                f"hook {name!r} is not read: {', '.join(source.shapes)} are; name it in reader(...)"
            )
    digest = hashlib.sha256(json.dumps([names, provenance], sort_keys=True).encode())
    digest.update(np.ascontiguousarray(rows.tokens.reshape(-1)[source.where]).tobytes())
    arrays = {name: LiveTokens(source, name, 0, source.tokens) for name in names}
    return Split(
        name="live/all",
        arrays=arrays,  # type: ignore
        prepare=FromHooks(x, wanted, context),
        fingerprint=digest.hexdigest(),
        origin=f"activations of {json.dumps(provenance)}",
        facts=facts(x, wanted, provenance),
    )


def _names(hooks: Hooks) -> tuple[str, ...]:
    return (hooks,) if isinstance(hooks, str) else hooks
