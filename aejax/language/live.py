"""Activations straight into training: a split whose tokens are computed where they are read.

    split = live(read, rows, {"resid_post.15": 576}, "resid_post.15", passes=16, ...)
    batches = TokenBatches(split, size=2_048, seed=0, pool=65_536, resident_limit=0)

`TokenBatches` shuffles such a split as it does a store on the disk: blocks of neighbouring tokens
over the whole corpus, then tokens within a pool. So batch t is a function of (seed, t), and a run
resumes without a buffer to restore. What memory holds is the corpus as token ids (8 bytes each) and
the activations of two pools.
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

from aejax.data.activations.store import FromHooks, Hooks
from aejax.data.split import Split
from aejax.errors import UserError
from aejax.language.packing import Packed
from aejax.language.reading import Read


class Live:
    """The activations of all rows of a corpus, of which those in use are held.

    Attributes:
      tokens: N, those that are kept.
    """

    def __init__(self, read: Read, rows: Packed, passes: int, first_positions: int):
        """Runs nothing yet.

        Args:
          read: of `reader`, every value [B, P, d].
          rows: of the whole corpus.
          passes: rows that go through the model together.
          first_positions: tokens to leave out at the start of every row: attention sinks.
        """
        self.read, self.rows, self.passes = read, rows, passes
        self.where = np.flatnonzero(rows.position.reshape(-1) >= first_positions)
        if not len(self.where):
            raise UserError("no token is left to train on: the rows hold padding and sinks alone")
        shape = jax.ShapeDtypeStruct((passes, rows.tokens.shape[1]), np.int32)
        self.shapes = jax.eval_shape(read, shape, shape)
        self._held: OrderedDict[int, dict[str, np.ndarray]] = OrderedDict()  # row -> its values
        self._most = passes
        self._lock = threading.Lock()

    @property
    def tokens(self) -> int:
        """N."""
        return len(self.where)

    def reserve(self, tokens: int) -> None:
        """Keeps the rows of so many tokens; a block may share its rows with its neighbours."""
        mean = self.tokens / len(self.rows.tokens)
        self._most = max(self._most, int(2 * tokens / mean) + 2 * self.passes)

    def gather(self, hook: str, flat: np.ndarray) -> np.ndarray:
        """Values [n, d] of tokens by their number, flat i64[n]."""
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
            # One shape for all passes, so that one program serves them.
            padded = some + some[-1:] * (self.passes - len(some))
            seen = self.read(self.rows.tokens[padded], self.rows.position[padded])
            for hook, values in seen.items():
                for r, value in zip(some, np.asarray(values), strict=False):
                    self._held.setdefault(r, {})[hook] = value


class LiveTokens:
    """One hook of a `Live`, as an array [N, d]."""

    ndim = 2

    def __init__(self, source: Live, hook: str, start: int, stop: int):
        self.source, self.hook, self.start = source, hook, start
        self.dtype = np.dtype(source.shapes[hook].dtype)
        self.shape = (stop - start, source.shapes[hook].shape[-1])

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes that all tokens would take."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def reserve(self, tokens: int) -> None:
        """Keeps the rows of so many tokens."""
        self.source.reserve(tokens)

    def __getitem__(self, indices: Any) -> np.ndarray:
        """Rows by their number: integers [...] or a slice -> [..., d]."""
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
    """The tokens of a corpus as a split whose activations are computed while training.

    Args:
      read: of `reader`, which reads the hooks of x and target.
      batches: of `packs`, all of them.
      x: the hook that the encoder sees, or several for a crosscoder.
      target: what is to be explained; None: x; another hook for a transcoder.
      context: what the decoder sees too: x for a skip transcoder; None: nothing.
      provenance: model, corpus, packing: all that the values depend on, as plain values.
      first_positions: tokens to leave out at the start of every row: 1 for an attention sink.
      passes: rows that go through the model together.

    Returns:
      A Split for `TokenBatches`. Give that a `resident_limit` below the size of the activations, or
      all of them are computed at once and kept on the device.

    Raises:
      UserError: there is no token, or a hook that `read` does not read.
    """
    rows = Packed(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))
    source = Live(read, rows, passes, first_positions)
    wanted = x if target is None else target
    names = sorted({*_names(x), *_names(wanted), *_names(context or ())})
    for name in names:
        if name not in source.shapes:
            raise UserError(f"hook {name!r} is not read: {', '.join(source.shapes)} are")
    digest = hashlib.sha256(json.dumps([names, provenance], sort_keys=True).encode())
    digest.update(np.ascontiguousarray(rows.tokens.reshape(-1)[source.where]).tobytes())
    arrays = {name: LiveTokens(source, name, 0, source.tokens) for name in names}
    return Split(
        name="live/all",
        arrays=arrays,  # type: ignore
        prepare=FromHooks(x, wanted, context),
        fingerprint=digest.hexdigest(),
        origin=f"activations of {json.dumps(provenance)}",
    )


def _names(hooks: Hooks) -> tuple[str, ...]:
    return (hooks,) if isinstance(hooks, str) else hooks
