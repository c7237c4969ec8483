"""A prepared corpus on the disk: documents in array_record, and what is asked of all at once.

A folder that tensorflow-datasets prepared holds the documents, read by their number; `aejax.npz`
beside them holds every document's label and group, so that splitting reads no text.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aejax.data.split import fingerprint
from aejax.data.text.corpus import Document
from aejax.errors import UserError
from aejax.optional import needs

FILE = "aejax.npz"
BLOCK = 256  # documents that are read together


class Index(NamedTuple):
    """What is known of all documents of a corpus without reading them."""

    name: str
    labels: np.ndarray | None  # i32[N], indices into `classes`
    groups: np.ndarray  # i32[N]: documents of one number are never divided between splits
    classes: tuple[str, ...]
    origin: str
    content: str  # sha256 over all documents in order


def save(folder: Path, index: Index) -> None:
    """Writes the index into a folder that is renamed into place afterwards."""
    arrays = {"group": index.groups}
    if index.labels is not None:
        arrays["label"] = index.labels
    about = {
        "name": index.name,
        "classes": list(index.classes),
        "origin": index.origin,
        "content": index.content,
        "sha256": fingerprint(arrays),
    }
    np.savez(folder / FILE, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)


def load(folder: Path) -> Index:
    """Reads what `save` wrote.

    Raises:
      UserError: the file is damaged.
    """
    path = folder / FILE
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, Any] = {key: file[key] for key in file.files}
        about = json.loads(str(arrays.pop("about")))
        if fingerprint(arrays) != about["sha256"]:
            raise ValueError("its sha256 differs")
        return Index(
            name=about["name"],
            labels=arrays.get("label"),
            groups=arrays["group"],
            classes=tuple(about["classes"]),
            origin=about["origin"],
            content=about["content"],
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(folder, error) from error


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """Some documents of a prepared corpus, in the order of `rows`."""

    folder: Path
    source: Any  # tfds' random-access source of all documents
    rows: np.ndarray  # i32[N], numbers of documents

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
        except Exception as error:  # array_record names its own kinds: a cut or changed file
            raise _damaged(self.folder, error) from error


def opened(folder: Path, documents: int) -> Any:
    """The random-access source of all documents of a prepared corpus.

    Raises:
      UserError: files are missing, or hold another number of documents.
    """
    tfds = needs("tensorflow_datasets", "reading texts")
    try:
        source = tfds.builder_from_directory(str(folder)).as_data_source()["train"]
        found = len(source)
    except Exception as error:  # tfds on a folder that somebody changed: anything
        raise _damaged(folder, error) from error
    if found != documents:
        raise _damaged(folder, ValueError(f"it holds {found} documents of {documents}"))
    return source


def record(document: Document) -> dict[str, str]:
    """A document as tensorflow-datasets stores it."""
    label, tags = document.label or "", " ".join(document.tags)
    return {"id": document.id, "text": document.text, "label": label, "tags": tags}


def _document(record: Any) -> Document:
    id_, text, label, tags = (record[key].decode() for key in ("id", "text", "label", "tags"))
    return Document(id_, text, label or None, tuple(tags.split()))


def _damaged(folder: Path, error: Exception) -> UserError:
    reason = str(error).strip().partition("\n")[0]
    return UserError(f"{folder} is damaged ({reason}): delete that folder and start again")
