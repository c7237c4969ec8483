"""Writes and reads a prepared corpus: its documents, and an index of their labels and groups.

tensorflow-datasets (tfds) stores the documents in the format array_record, with random access.
`aejax.npz` in the same folder holds every document's label and group, so splitting reads no text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aejax.data import npz
from aejax.data.npz import damaged
from aejax.data.reading import open_builder
from aejax.data.text.corpus import Document
from aejax.errors import UserError
from aejax.files import json_fields

FILE = "aejax.npz"
# The checks of the fields of a corpus' description.
_ABOUT = {
    "name": json_fields.text(),
    "classes": json_fields.list_of(json_fields.text()),
    "origin": json_fields.text(),
    "content": json_fields.sha256,
}
BLOCK = 256  # the number of documents that are read together


class Index(NamedTuple):
    """The labels and groups of all documents of a corpus, and where the documents came from."""

    name: str
    labels: np.ndarray | None  # i32[N], indices into `classes`
    groups: np.ndarray  # i32[N], group indices; the documents of a group stay in one split
    classes: tuple[str, ...]  # the names of the labels
    origin: str  # where the files came from and whether their content was verified
    content: str  # sha256 over all documents, in order


def write_index(folder: Path, index: Index) -> None:
    """Writes the index into the folder of the corpus."""
    arrays = {"group": index.groups}
    if index.labels is not None:
        arrays["label"] = index.labels
    about = {
        "name": index.name,
        "classes": list(index.classes),
        "origin": index.origin,
        "content": index.content,
    }
    npz.save(folder / FILE, arrays, about)


def read_index(folder: Path) -> Index:
    """Reads the index that `write_index` wrote.

    Raises:
      UserError: if the file is damaged.
    """
    arrays, about = npz.load(folder / FILE, _ABOUT)
    labels = arrays.get("label")
    with damaged(folder / FILE):
        groups = arrays["group"]
        if groups.ndim != 1 or (labels is not None and labels.shape != groups.shape):
            raise ValueError("its labels and groups are not two columns of one length")
    return Index(
        name=about["name"],
        labels=labels,
        groups=groups,
        classes=tuple(about["classes"]),
        origin=about["origin"],
        content=about["content"],
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """Some documents of a prepared corpus, in the order of `rows`."""

    folder: Path
    source: Any  # the tfds data source of all documents, which has random access
    rows: np.ndarray  # i32[N], the indices of the documents in `source`

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> Document:
        return self._read(self.rows[index : index + 1])[0]

    def __iter__(self) -> Iterator[Document]:
        for start in range(0, len(self.rows), BLOCK):
            yield from self._read(self.rows[start : start + BLOCK])

    def _read(self, rows: np.ndarray) -> list[Document]:
        try:
            return [_document(record) for record in self.source.__getitems__(rows.tolist())]
        except Exception as error:  # array_record raises errors of many types for damaged files
            raise _damaged(self.folder, error) from error


def open_documents(folder: Path, documents: int) -> Any:
    """Opens a prepared corpus and returns the tfds data source of all its documents.

    Args:
      folder: the folder of the corpus.
      documents: the number of documents that it must hold.

    Raises:
      UserError: if files are missing or damaged, or hold another number of documents.
    """
    builder = open_builder(folder, "reading texts")
    try:
        source = builder.as_data_source()["train"]
        found = len(source)
    except Exception as error:  # tfds raises errors of many types if a folder was changed
        raise _damaged(folder, error) from error
    if found != documents:
        raise _damaged(folder, ValueError(f"it holds {found} of {documents} documents"))
    return source


def record(document: Document) -> dict[str, str]:
    """Returns a document as the example that tfds stores."""
    label, tags = document.label or "", " ".join(document.tags)
    return {"id": document.id, "text": document.text, "label": label, "tags": tags}


def _document(record: Any) -> Document:
    id_, text, label, tags = (record[key].decode() for key in ("id", "text", "label", "tags"))
    return Document(id_, text, label or None, tuple(tags.split()))


def _damaged(folder: Path, error: Exception) -> UserError:
    reason = str(error).strip().partition("\n")[0]
    return UserError(f"{folder} is damaged ({reason}): delete the folder and start again")
