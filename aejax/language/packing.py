"""Texts as rows of tokens of one length: concatenated, or each row from one text alone.

for packed in packs(tokenizer, texts, Packing(length=128), rows=16): ...
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

from aejax.errors import UserError
from aejax.language.layers import PADDING

TEXTS = 256  # that are tokenised together


class Encoder(Protocol):
    """What packing needs of a tokenizer."""

    @property
    def bos(self) -> int | None:
        """The token that begins a text, or None."""
        ...

    def encode_batch(self, texts: list[str], /) -> list[list[int]]:
        """The tokens of each text."""
        ...


@dataclasses.dataclass(frozen=True)
class Packing:
    """How texts become rows; a store's provenance keeps it.

    Attributes:
      length: P, tokens of a row.
      together: texts follow each other without a gap, and tokens attend to all before them in the
        row; False: a row holds one text, a long text takes several, and padding fills the rest.
      bos: the BOS token begins every text; False: none.
    """

    length: int = 128
    together: bool = True
    bos: bool = False

    def __post_init__(self):
        """Checks the length.

        Raises:
          UserError: it is below 2.
        """
        if self.length < 2:
            raise UserError(f"a row of {self.length} tokens: give 2 or more")


class Packed(NamedTuple):
    """Some rows."""

    tokens: np.ndarray  # i32[R, P], 0 where padding
    position: np.ndarray  # i32[R, P], from 0 in each row; -1 where padding
    text: np.ndarray  # i32[R, P], the number of each token's text; -1 where padding


def packs(
    tokenizer: Encoder, texts: Iterable[str], packing: Packing, rows: int, start: int = 0
) -> Iterator[Packed]:
    """Batches of rows, all of one shape; memory holds one batch and a few texts.

    Args:
      tokenizer: of the model.
      texts: in order; those of no token are left out.
      packing: how they become rows.
      rows: R, of a batch; the last one is filled with rows of padding.
      start: how many batches to leave out, as they were seen before.

    Raises:
      UserError: there is no token, or BOS is asked for and the tokenizer has none.
    """
    if rows < 1:
        raise UserError(f"batches of {rows} rows: give 1 or more")
    made = _rows(tokenizer, texts, packing)
    first = next(made, None)
    if first is None:
        raise UserError("the corpus is empty: its texts have no token")
    made = itertools.islice(itertools.chain([first], made), start * rows, None)
    while batch := list(itertools.islice(made, rows)):
        tokens = np.zeros((rows, packing.length), np.int32)
        position, text = np.full_like(tokens, PADDING), np.full_like(tokens, PADDING)
        for i, (row, owner) in enumerate(batch):
            tokens[i, : len(row)], text[i, : len(row)] = row, owner
            position[i, : len(row)] = np.arange(len(row))
        yield Packed(tokens, position, text)


def _rows(
    tokenizer: Encoder, texts: Iterable[str], packing: Packing
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(tokens i32[n], text i32[n]) of each row, n at most the length."""
    length = packing.length
    held = np.zeros((2, 0), np.int32)
    for number, ids in enumerate(_encoded(tokenizer, texts, packing.bos)):
        own = np.stack([ids, np.full(len(ids), number, np.int32)])
        held = np.concatenate([held, own], axis=1) if packing.together else own
        whole = held.shape[1] // length * length
        for i in range(0, whole, length):
            yield held[0, i : i + length], held[1, i : i + length]
        held = held[:, whole:]
        if not packing.together and held.shape[1]:
            yield held[0], held[1]
    if packing.together and held.shape[1]:
        yield held[0], held[1]


def _encoded(tokenizer: Encoder, texts: Iterable[str], bos: bool) -> Iterator[np.ndarray]:
    """i32[n] of each text."""
    if bos and tokenizer.bos is None:
        raise UserError("this tokenizer has no BOS token: pack without it")
    first, texts = [tokenizer.bos] if bos else [], iter(texts)
    while some := list(itertools.islice(texts, TEXTS)):
        for ids in tokenizer.encode_batch(some):
            # A text of nothing is nothing, also where BOS would begin it.
            yield np.asarray(first + ids if ids else [], np.int32)
