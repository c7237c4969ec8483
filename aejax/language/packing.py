"""Packs texts into rows of equally many tokens: concatenated, or with one text in each row.

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

TEXTS = 256  # the number of texts that are tokenised together


class Encoder(Protocol):
    """The methods of a tokenizer that packing needs."""

    @property
    def bos(self) -> int | None:
        """The id of the token that begins a text, or None."""
        ...

    def encode_batch(self, texts: list[str], /) -> list[list[int]]:
        """Returns the token ids of each text, as one list of integers per text."""
        ...


@dataclasses.dataclass(frozen=True)
class Packing:
    """How texts are packed into rows.

    Attributes:
      length: P, the number of tokens in a row.
      together: whether texts follow each other in a row without a gap, so that tokens attend to
        earlier texts. Otherwise each row holds tokens of one text; a long text fills several rows,
        and padding fills the rest of a row.
      bos: whether the BOS token is put before every text.
    """

    length: int = 128
    together: bool = True
    bos: bool = False

    def __post_init__(self):
        """Checks the length.

        Raises:
          UserError: if it is below 2.
        """
        if self.length < 2:
            raise UserError(f"length is {self.length}: give rows of 2 tokens or more")


class Packed(NamedTuple):
    """One batch of R rows."""

    tokens: np.ndarray  # i32[R, P], 0 for padding
    position: np.ndarray  # i32[R, P], counted from 0 in each row; -1 for padding
    text: np.ndarray  # i32[R, P], the index of each token's text in the corpus; -1 for padding


def packs(
    tokenizer: Encoder, texts: Iterable[str], packing: Packing, rows: int, start: int = 0
) -> Iterator[Packed]:
    """Tokenises texts and yields batches of rows, [rows, P]; memory holds one batch and some texts.

    Args:
      tokenizer: the model's tokenizer.
      texts: the texts, in order; texts without a token are left out.
      packing: how the texts are packed into rows.
      rows: R, the number of rows in a batch; the last batch is filled with rows of padding.
      start: the number of batches to skip, for a caller that has already processed them.

    Raises:
      UserError: if there is no token at all, or `packing.bos` is set and the tokenizer has no BOS
        token.
    """
    if rows < 1:
        raise UserError(f"rows is {rows}: give 1 or more")
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
    """Yields for each row its n <= P token ids, i32[n], and the indices of their texts, i32[n]."""
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
    """Yields the token ids i32[n] of each text, with n = 0 for a text without a token.

    Raises:
      UserError: if `bos` is set and the tokenizer has no BOS token.
    """
    if bos and tokenizer.bos is None:
        raise UserError("this tokenizer has no BOS token: use Packing(bos=False)")
    first, texts = [tokenizer.bos] if bos else [], iter(texts)
    while some := list(itertools.islice(texts, TEXTS)):
        for ids in tokenizer.encode_batch(some):
            # An empty text gets no BOS token and is left out.
            yield np.asarray(first + ids if ids else [], np.int32)
