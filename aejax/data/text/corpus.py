"""Corpus: one part of a text data set, whose documents are read as they are asked for.

for document in corpus:                # in order, read in blocks that are let go again
    ids = tokenizer.encode(document.text)
corpus[7].label, corpus.labels[7]      # "news", 9

Tokens are no business of a corpus: whoever packs token ids into rows iterates over documents.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np


class Document(NamedTuple):
    """One text and what is known of it."""

    id: str  # unique in its corpus: a path, a line's number, a synset, "Genesis 1"
    text: str
    label: str | None = None  # genre, topic, book; None where the corpus has no labels
    # One part of speech for each word of text.split(), in that order; empty where none are known.
    tags: tuple[str, ...] = ()


class Documents(Protocol):
    """Documents by their number; a list is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Document: ...

    def __iter__(self) -> Iterator[Document]: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """One part of a text data set: train, validation, test or the held-out labels."""

    name: str  # of the data set and the part: "brown/train"
    documents: Documents
    labels: np.ndarray | None = None  # i32[N], indices into `classes`
    classes: tuple[str, ...] = ()  # names of the labels; the same in every part
    fingerprint: str = ""  # sha256 over the documents' content and their order
    origin: str = ""  # where the files came from and whether that was verified

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: int) -> Document:
        """The document of that number; negative numbers count from the end."""
        n = len(self)
        if not -n <= index < n:
            raise IndexError(f"document {index} of {n}")
        return self.documents[index + n if index < 0 else index]

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents)

    def provenance(self) -> dict[str, Any]:
        """What environment.json says of the data, as plain values."""
        return {
            "name": self.name,
            "documents": len(self),
            "origin": self.origin,
            "sha256": self.fingerprint,
        }


class Texts(NamedTuple):
    """A text data set in its parts; no document, and no group of documents, is in two of them."""

    train: Corpus
    validation: Corpus
    test: Corpus
    shifted: Corpus | None  # all documents with a held-out label; None where none is held out


def digest(documents: Iterable[Document]) -> str:
    """The sha256 over all fields of all documents, in order."""
    found = hashlib.sha256()
    for document in documents:
        add(found, document)
    return found.hexdigest()


def add(hasher: Any, document: Document) -> None:
    """Adds a document to a hash; lengths come first, so that no two sequences read alike."""
    fields: Sequence[str] = (*document[:2], document.label or "", " ".join(document.tags))
    for field in fields:
        content = field.encode()
        hasher.update(len(content).to_bytes(8, "little"))
        hasher.update(content)
