"""Prepares a corpus: writes it into the data folder after reading and checking every document."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np

from aejax.data.builder import builder
from aejax.data.data_dir import locked_workspace, newest, quiet_tfds
from aejax.data.text.corpus import add
from aejax.data.text.source import Source
from aejax.data.text.store import FILE, Index, record, write_index
from aejax.errors import UserError
from aejax.optional import needs


def prepare(source: Source, name: str, data_dir: Path) -> Path:
    """Writes a corpus in the format array_record, with a builder of tensorflow-datasets.

    Args:
      source: the files of the corpus and their reader.
      name: the name of the folder in data_dir, made of letters, digits and underscores.
      data_dir: the folder of prepared data sets; it is created if it does not exist.

    Returns:
      The folder that `store.read_index` and `store.open_documents` read.

    Raises:
      UserError: if a document is damaged or data_dir cannot be written; nothing half-written stays.
    """
    with locked_workspace(data_dir) as workspace:
        found = newest(data_dir, name, FILE)
        if found is not None:  # another process prepared it while this one waited for the lock
            return found.parent
        index = survey(source)
        print(f"preparing {source.name} in {data_dir}, once", file=sys.stderr)
        with quiet_tfds():
            made = _builder(source, name)(data_dir=str(workspace), file_format="array_record")
            made.download_and_prepare()
        folder = Path(made.data_dir)
        write_index(folder, index)
        target = data_dir / folder.relative_to(workspace)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
    return target


def survey(source: Source) -> Index:
    """Reads all documents once and returns the index of their labels and groups, with their hash.

    Documents that share a group key, or have equal texts, belong to the same group; groups are
    numbered in the order of their first documents.

    Raises:
      UserError: if there is no document, or a document is damaged.
    """
    hasher, labels, joined = hashlib.sha256(), [], Joined()
    for document, keys in source.documents():
        add(hasher, document)
        labels.append(document.label)
        joined.add([f"text {document.text}", *keys])
    if not labels:
        raise UserError(
            f"{source.name} holds no documents, since {source.files[0]} is empty: give files with "
            "text"
        )
    classes = tuple(sorted({label for label in labels if label is not None}))
    number = {label: i for i, label in enumerate(classes)}
    content = hasher.hexdigest()
    return Index(
        name=source.name,
        labels=np.array([number[label] for label in labels], np.int32) if classes else None,
        groups=joined.numbers(),
        classes=classes,
        origin=_origin(source, content),
        content=content,
    )


class Joined:
    """A union-find structure that puts documents sharing a key in one set; keys are hashed."""

    def __init__(self):
        self._parent: list[int] = []
        self._holder: dict[bytes, int] = {}

    def add(self, keys: list[str]) -> None:
        """Adds a document, and joins it with the sets of earlier documents that share a key."""
        new = len(self._parent)
        self._parent.append(new)
        for key in keys:
            short = hashlib.blake2b(key.encode(), digest_size=16).digest()
            self._parent[self._root(new)] = self._root(self._holder.setdefault(short, new))

    def _root(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def numbers(self) -> np.ndarray:
        """Returns the index of each document's group, i32[N]."""
        found: dict[int, int] = {}
        roots = (self._root(i) for i in range(len(self._parent)))
        return np.array([found.setdefault(root, len(found)) for root in roots], np.int32)


def _origin(source: Source, content: str) -> str:
    if source.sha256 is None:
        return source.about
    same = content == source.sha256
    return f"from --manual-dir, {'content verified' if same else 'not the known content'}"


def _builder(source: Source, dataset: str) -> type:
    """Returns the tfds builder class of one corpus, whose documents keep the order of the files."""
    tfds = needs("tensorflow_datasets", "preparing texts")
    features = {key: tfds.features.Text() for key in ("id", "text", "label", "tags")}
    documents = (record(document) for document, _ in source.documents())
    return builder(dataset, source.about, features, {"train": documents})
