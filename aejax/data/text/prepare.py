"""Preparing a corpus into the data folder, once: every document is read and checked before that."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from aejax.data.data_dir import alone, newest, quiet
from aejax.data.text.corpus import add
from aejax.data.text.source import Source
from aejax.data.text.store import FILE, Index, record, save
from aejax.errors import UserError
from aejax.optional import needs


def prepare(source: Source, name: str, data_dir: Path) -> Path:
    """Writes a corpus as array_record by a builder of tensorflow-datasets.

    Args:
      source: the files and how they are read.
      name: of the folder in data_dir; letters, digits and underscores.
      data_dir: made where it does not exist.

    Returns:
      The folder that `store.load` and `store.opened` read.

    Raises:
      UserError: a document is not as it should be, or data_dir cannot be written. Nothing is left
        half-written.
    """
    with alone(data_dir) as workshop:
        found = newest(data_dir, name, FILE)
        if found is not None:  # another process prepared it while this one waited
            return found.parent
        index = survey(source)
        print(f"preparing {source.name} in {data_dir}, once", file=sys.stderr)
        with quiet():
            builder = _builder(source, name)(data_dir=str(workshop), file_format="array_record")
            builder.download_and_prepare()
        folder = Path(builder.data_dir)
        save(folder, index)
        target = data_dir / folder.relative_to(workshop)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
    return target


def survey(source: Source) -> Index:
    """Reads all documents once: their labels, groups and hash.

    Documents that share a key, or whose texts are equal, get the same group; groups are numbered
    in the order in which they are met.

    Raises:
      UserError: there is no document, or a reader met one that is not as it should be.
    """
    hasher, labels, joined = hashlib.sha256(), [], _Joined()
    for document, keys in source.documents():
        add(hasher, document)
        labels.append(document.label)
        joined.add([f"text {document.text}", *keys])
    if not labels:
        raise UserError(f"{source.name} holds no documents: {source.files[0]} is empty")
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


class _Joined:
    """Disjoint sets of documents, joined by keys; a key is kept as a short hash."""

    def __init__(self):
        self._parent: list[int] = []
        self._holder: dict[bytes, int] = {}

    def add(self, keys: list[str]) -> None:
        """The next document, joined with all earlier ones that share a key."""
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
        """The group of each document, i32[N]."""
        found: dict[int, int] = {}
        roots = (self._root(i) for i in range(len(self._parent)))
        return np.array([found.setdefault(root, len(found)) for root in roots], np.int32)


def _origin(source: Source, content: str) -> str:
    if source.sha256 is None:
        return source.about
    same = content == source.sha256
    return f"from --manual-dir, {'content verified' if same else 'not the known content'}"


def _builder(source: Source, dataset: str) -> Any:
    """The tfds builder class of one corpus."""
    tfds = needs("tensorflow_datasets", "preparing texts")

    class Texts(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # pyright: ignore
        """Documents in the order of their files."""

        VERSION = tfds.core.Version("1.0.0")
        name = dataset

        def _info(self):
            fields = ("id", "text", "label", "tags")
            return tfds.core.DatasetInfo(
                builder=self,
                description=source.about,
                features=tfds.features.FeaturesDict({key: tfds.features.Text() for key in fields}),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i, (document, _) in enumerate(source.documents()):
                yield i, record(document)

    return Texts
