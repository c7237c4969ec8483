"""Loads a named corpus, a folder of files or JSON lines as train, validation and test splits."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aejax.data.data_dir import default_data_dir, newest
from aejax.data.splitting import divide
from aejax.data.text import NAMED, folder
from aejax.data.text.corpus import Corpus, Texts
from aejax.data.text.prepare import prepare
from aejax.data.text.store import FILE, Index, Stored, open_documents, read_index
from aejax.errors import UserError


def texts(
    name_or_path: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    held_out: Sequence[str] = (),
    seed: int = 0,
) -> Texts:
    """Divides a text data set, document by document, into train, validation and test.

    The corpora "brown", "wordnet" and "bible" are prepared once from the files in `manual_dir`. A
    path names a folder of text files whose subfolders are the labels, or JSON lines of the form
    {"text": ..., "label": ...}. Documents that belong together always go to the same split:
    documents with equal text, JSON lines with the same "group", and WordNet's synsets with the
    same first word or definition.

    Args:
      name_or_path: the name of a corpus, a folder, or a file that ends in .jsonl or .ndjson.
      data_dir: the folder of prepared data sets; by default that of tensorflow-datasets.
      manual_dir: the folder with the files of a named corpus, needed until it is prepared.
      validation: the share (below 1) or the number of the documents in the validation split, which
        gets fewer if documents that belong together do not fill it exactly.
      test: the share or the number of the documents in the test split, which may get fewer too.
      held_out: labels whose documents are kept out of the three splits and returned as `shifted`, a
        test set from another distribution. Other documents of the same groups are not used at all.
      seed: the seed of the random division.

    Returns:
      Texts(train, validation, test, shifted).

    Raises:
      UserError: if the name is unknown, files are missing or damaged, a text is not UTF-8, there
        are no documents, a held-out label does not exist, or data_dir cannot be written.
    """
    found = _prepared(name_or_path, data_dir, manual_dir)
    index = read_index(found)
    source = open_documents(found, len(index.groups))

    def corpus(part: str, rows: np.ndarray) -> Corpus:
        return Corpus(
            name=f"{index.name}/{part}",
            documents=Stored(found, source, rows),
            labels=None if index.labels is None else index.labels[rows],
            classes=index.classes,
            fingerprint=_fingerprint(index.content, rows),
            origin=index.origin,
        )

    kept, shifted = _held_out(index, [held_out] if isinstance(held_out, str) else held_out)
    parts = divide(
        {"row": kept},
        index.name,
        shares={"validation": validation, "test": test},
        seed=seed,
        groups=index.groups[kept],
    )
    train, valid, tested = (part["row"] for part in parts)
    return Texts(
        train=corpus("train", train),
        validation=corpus("validation", valid),
        test=corpus("test", tested),
        shifted=corpus("shifted", shifted) if len(shifted) else None,
    )


def _prepared(
    name_or_path: str | os.PathLike,
    data_dir: str | os.PathLike | None,
    manual_dir: str | os.PathLike | None,
) -> Path:
    """Returns the folder of the prepared corpus, after preparing it if that was not done before."""
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    root = Path(data_dir).expanduser() if data_dir is not None else default_data_dir()
    if name in NAMED and not isinstance(name_or_path, Path):
        found = newest(root, name, FILE)
        if found is not None:
            return found.parent
        manual = Path(manual_dir).expanduser() if manual_dir is not None else None
        return prepare(NAMED[name](manual), name, root)
    if not (path.exists() or isinstance(name_or_path, Path) or os.sep in name):
        raise UserError(
            f"unknown corpus {name!r}: give one of {', '.join(NAMED)}, or the path of a folder of "
            "text files or of a file of JSON lines"
        )
    source = folder.source(path)
    # The name contains the hash of the files, so that they are prepared again only after a change.
    own = f"texts_{source.content()[:16]}"
    found = newest(root, own, FILE)
    return found.parent if found is not None else prepare(source, own, root)


def _held_out(index: Index, labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices i32 of the documents to divide, and of those with a held-out label.

    Other documents in the groups of held-out documents are in neither of the two arrays.
    """
    rows = np.arange(len(index.groups), dtype=np.int32)
    if not labels:
        return rows, rows[:0]
    if index.labels is None:
        raise UserError(f"{index.name} has no labels, so none can be held out: omit `held_out`")
    unknown = [label for label in labels if label not in index.classes]
    if unknown:
        raise UserError(
            f"{index.name} has no label {unknown[0]!r} to hold out: "
            f"it has {', '.join(index.classes)}"
        )
    out = np.isin(index.labels, [index.classes.index(label) for label in labels])
    # The other documents of a held-out document's group are left out, or the group would be divided
    # between the splits.
    return rows[~np.isin(index.groups, index.groups[out])], rows[out]


def _fingerprint(content: str, rows: np.ndarray) -> str:
    """Returns the sha256 over the corpus' hash and the indices of the split's documents."""
    return hashlib.sha256(content.encode() + rows.astype("<i4").tobytes()).hexdigest()
