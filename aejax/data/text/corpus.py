"""One split of a text data set, whose documents are read from the disk when needed.

for document in corpus:                # in order; only one block of documents is in memory
    ids = tokenizer.encode(document.text)
corpus[7].label, corpus.labels[7]      # "news", 9

A corpus holds texts, not tokens; `aejax.language.packing` converts documents to rows of tokens.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np


class Document(NamedTuple):
    """One text with its label and tags."""

    id: str  # unique in its corpus, such as a path, a line number, a synset or "Genesis 1"
    text: str
    label: str | None = None  # the genre, topic or book; None if the corpus has no labels
    # The part of speech of each word of text.split(), in that order; empty if they are not known.
    tags: tuple[str, ...] = ()


class Documents(Protocol):
    """A sequence of documents, such as a list, or a reader of files."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Document: ...

    def __iter__(self) -> Iterator[Document]: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """One split of a text data set: train, validation, test or `shifted` (see Texts)."""

    name: str  # the names of the data set and the split, such as "brown/train"
    documents: Documents
    labels: np.ndarray | None = None  # i32[N], indices into `classes`
    classes: tuple[str, ...] = ()  # the names of the labels, the same in every split
    fingerprint: str = ""  # sha256 over the documents' content and their order
    origin: str = ""  # where the files came from and whether their content was verified

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: int) -> Document:
        """Returns the document at an index; negative indices count from the end."""
        n = len(self)
        if not -n <= index < n:
            raise IndexError(f"there is no document {index} among {n} documents")
        return self.documents[index + n if index < 0 else index]

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents)

    def provenance(self) -> dict[str, Any]:
        """Returns the description of the data that environment.json records, as JSON values."""
        return {
            "name": self.name,
            "documents": len(self),
            "origin": self.origin,
            "sha256": self.fingerprint,
        }


class Texts(NamedTuple):
    """The splits of a text data set; no document and no group of documents is in two of them."""

    train: Corpus
    validation: Corpus
    test: Corpus
    shifted: Corpus | None  # all documents with a held-out label; None if no label is held out


def digest(documents: Iterable[Document]) -> str:
    """Returns the sha256 over all fields of all documents, in order."""
    found = hashlib.sha256()
    for document in documents:
        add(found, document)
    return found.hexdigest()


def add(hasher: Any, document: Document) -> None:
    """Updates a hash with a document.

    Each field is preceded by its length, so that different documents never give the same bytes.
    """
    fields: Sequence[str] = (*document[:2], document.label or "", " ".join(document.tags))
    for field in fields:
        content = field.encode()
        hasher.update(len(content).to_bytes(8, "little"))
        hasher.update(content)
