"""Codings: how a text becomes a sequence of token ids, and such a sequence a text again.

    coding = learned("words", texts, size=4_000)   # of the texts of train alone
    rows = encode(coding, ["a small dog"], 16)     # i32[1, 16]
    decode(coding, rows)                           # ["a small dog"]

In every coding the id 0 is padding and 1 ends a text. A coding is a frozen record of strings, so
that it can be a field of a model, is written to config.json with it, and is compared by value.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from aejax.errors import UserError
from aejax.files import reason
from aejax.optional import needs

PAD, END, UNKNOWN = 0, 1, 2
MOST_TOKENIZER = 2**26  # the largest JSON of a tokenizer, in bytes; that of Gemma 3 has 33 MB
Kind: TypeAlias = Literal["bytes", "words", "pieces"]
_WORD = re.compile(r"\w+(?:[-'’]\w+)*|[^\w\s]")


@dataclasses.dataclass(frozen=True)
class Bytes:
    """A coding by the bytes of a text in UTF-8; byte b has the id b + 2, so no text is unknown."""

    size: ClassVar[int] = 258

    def ids(self, text: str) -> list[int]:
        """Returns the token ids of a text, without the id 1 that ends a text."""
        return [byte + 2 for byte in text.encode()]

    def text(self, ids: Sequence[int]) -> str:
        """Returns the text of token ids; bytes that are not UTF-8 become question marks."""
        return bytes(i - 2 for i in ids).decode(errors="replace")


@dataclasses.dataclass(frozen=True)
class Words:
    """A coding by words and punctuation marks; unknown words have the id 2 and the text "<unk>".

    Attributes:
      words: the known words; word i has the id i + 3.
      lower: whether upper-case letters become lower-case.
    """

    words: tuple[str, ...]
    lower: bool = True

    @property
    def size(self) -> int:
        """The number of token ids."""
        return len(self.words) + 3

    def ids(self, text: str) -> list[int]:
        """Returns the token ids of a text, without the id 1 that ends a text."""
        number = _numbers(self.words)
        return [number.get(word, UNKNOWN) for word in split_words(text, self.lower)]

    def text(self, ids: Sequence[int]) -> str:
        """Returns the text of token ids: words with spaces between them, but not before a comma."""
        words = [self.words[i - 3] if i > UNKNOWN else "<unk>" for i in ids]
        return re.sub(r"(?<=\S) (?=[.,;:!?)\]}])|(?<=[(\[{]) ", "", " ".join(words))


def parse_tokenizer(content: bytes, where: str) -> Any:
    """Returns the tokenizer, of the package `tokenizers`, that its JSON describes.

    Raises:
      UserError: if it is damaged, or larger than MOST_TOKENIZER bytes; it names `where`.
    """
    library = needs("tokenizers", where)
    with building(where):
        if len(content) > MOST_TOKENIZER:
            raise ValueError(f"its {len(content):,} bytes are more than {MOST_TOKENIZER:,}")
        return library.Tokenizer.from_buffer(content)


@contextlib.contextmanager
def building(where: str) -> Iterator[None]:
    """Turns any error of the package `tokenizers` into a UserError that names `where`."""
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the library, which is in Rust, is no Exception
        raise UserError(f"{where} cannot be read ({reason(error)}): fetch it again") from error


@dataclasses.dataclass(frozen=True)
class Pieces:
    """A coding by frequent pieces of words, found by byte-pair encoding; no text is unknown.

    Attributes:
      model: the vocabulary and merges as the JSON of the package `tokenizers`; piece i has the id
        i + 2.
    """

    model: str

    @functools.cached_property
    def size(self) -> int:
        """The number of token ids."""
        return self._tokenizer.get_vocab_size(with_added_tokens=False) + 2

    @functools.cached_property
    def _tokenizer(self) -> Any:
        return parse_tokenizer(self.model.encode(), "the coding in pieces")

    def ids(self, text: str) -> list[int]:
        """Returns the token ids of a text, without the id 1 that ends a text."""
        return [i + 2 for i in self._tokenizer.encode(text).ids]

    def text(self, ids: Sequence[int]) -> str:
        """Returns the text of token ids."""
        return self._tokenizer.decode([int(i) - 2 for i in ids])


Coding: TypeAlias = Bytes | Words | Pieces


def split_words(text: str, lower: bool = True) -> list[str]:
    """Returns the words and punctuation marks of a text, in order."""
    return _WORD.findall(text.lower() if lower else text)


@functools.lru_cache(maxsize=8)
def _numbers(words: tuple[str, ...]) -> dict[str, int]:
    return {word: i + 3 for i, word in enumerate(words)}


def learned(kind: Kind, texts: Iterable[str], size: int = 4_000) -> Coding:
    """Returns a coding whose vocabulary is made from texts, which should be those of train alone.

    Args:
      kind: "bytes", "words" or "pieces".
      texts: the texts.
      size: the largest number of token ids; bytes always have 258.

    Raises:
      UserError: if the kind is unknown, or `size` leaves room for no token.
    """
    if kind == "bytes":
        return Bytes()
    if kind not in ("words", "pieces"):
        raise UserError(f"coding is {kind!r}: give 'bytes', 'words' or 'pieces'")
    least = 4 if kind == "words" else 258
    if size < least:
        raise UserError(f"the vocabulary has {size} ids: give {least} or more for {kind}")
    if kind == "words":
        counts = collections.Counter(word for text in texts for word in split_words(text))
        # Words of equal counts are in alphabetical order, so that the coding is reproducible.
        order = sorted(counts, key=lambda word: (-counts[word], word))
        return Words(tuple(order[: size - 3]))
    library = needs("tokenizers", "a coding in pieces")
    for part in ("decoders", "models", "pre_tokenizers", "trainers"):
        needs(f"tokenizers.{part}", "a coding in pieces")
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size - 2,
        show_progress=False,
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return Pieces(tokenizer.to_str())


def encode(
    coding: Coding,
    texts: Sequence[str],
    length: int,
    long: Literal["cut", "refuse"] = "refuse",
    where: str = "",
) -> np.ndarray:
    """Encodes texts as rows of token ids, i32[N, length]: tokens, the end, and padding.

    Args:
      coding: the coding.
      texts: the texts.
      length: the number of ids of a row, which includes the end.
      long: what happens to texts of more tokens than a row has: "cut" keeps the first ones and
        ends the text there, and prints how many were cut; "refuse" raises an error.
      where: the words in messages for where the texts are, such as " of brown/train".

    Raises:
      UserError: if a text is empty, or too long and to be refused; the message names its row.
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"the texts{where} are not a list of strings: give one string for each")
    if long not in ("cut", "refuse"):
        raise UserError(f"long is {long!r}: give 'cut' or 'refuse'")
    rows = np.zeros((len(texts), length), np.int32)
    cut = 0
    for i, text in enumerate(texts):
        ids = coding.ids(text)
        if not ids:
            raise UserError(f"text {i}{where} is empty: leave it out, or add words to it")
        if len(ids) >= length:
            if long == "refuse":
                raise UserError(
                    f"text {i}{where} has {len(ids)} tokens, but a row has room for {length - 1} "
                    "and the end: give a larger length, or long='cut'"
                )
            ids, cut = ids[: length - 1], cut + 1
        rows[i, : len(ids) + 1] = [*ids, END]
    if cut:
        said = f"{cut:,} of {len(texts):,} texts{where} are cut to {length - 1} tokens"
        print(said, file=sys.stderr)
    return rows


def tokens_of(row: Sequence[int]) -> list[int]:
    """Returns the tokens of one row, i[T], up to its end, which is left out."""
    ids = [int(i) for i in row]
    return ids[: next((i for i, token in enumerate(ids) if token <= END), len(ids))]


def decode(coding: Any, rows: Any) -> list[str]:
    """Returns the text of each row of token ids, i[N, T], up to its end."""
    return [coding.text(tokens_of(row)) for row in np.asarray(rows)]
