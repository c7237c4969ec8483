"""Texts as train, validation and test: a corpus by its name, a folder of text files, JSON lines."""

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
from aejax.data.text.store import FILE, Index, Stored, load, opened
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
    """A text data set, divided by document into train, validation and test.

    "brown", "wordnet" and "bible" are prepared once from a package's files, which `manual_dir`
    names. A path is a folder of text files whose subfolders are the labels, or of JSON lines
    {"text": ..., "label": ...}. Documents with equal text always stand in the same part, and so do
    JSON lines of one "group" and WordNet's synsets with the same first word or definition.

    Args:
      name_or_path: the name of a corpus, a folder, or a file that ends in .jsonl.
      data_dir: where a corpus is prepared, once; by default tensorflow-datasets' own folder.
      manual_dir: the folder with the package's files, needed the first time.
      validation: share (below 1) or number of the documents that go to validation; fewer where
        whole groups do not fill it.
      test: the same for test.
      held_out: labels whose documents are kept out of all three and come back as `shifted`: a test
        set from another distribution. Other documents of their groups are left out altogether.
      seed: decides which documents go to validation and test.

    Returns:
      Texts(train, validation, test, shifted).

    Raises:
      UserError: unknown name, files missing or damaged, text that is not UTF-8, no documents, a
        held-out label that there is not, a folder that cannot be written.
    """
    found = _prepared(name_or_path, data_dir, manual_dir)
    index = load(found)
    source = opened(found, len(index.groups))

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
    """The folder of the prepared corpus, prepared now where it was not yet."""
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
            f"unknown corpus {name!r}: there are {', '.join(NAMED)}, and any folder of text files "
            "or file of JSON lines by its path"
        )
    source = folder.source(path)
    # Named by what the files hold, so that changed files are prepared anew and equal ones are not.
    own = f"texts_{source.content()[:16]}"
    found = newest(root, own, FILE)
    return found.parent if found is not None else prepare(source, own, root)


def _held_out(index: Index, labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers i32 of the documents that are divided, and of those with a held-out label."""
    rows = np.arange(len(index.groups), dtype=np.int32)
    if not labels:
        return rows, rows[:0]
    if index.labels is None:
        raise UserError(f"{index.name} has no labels, so that none can be held out")
    unknown = [label for label in labels if label not in index.classes]
    if unknown:
        raise UserError(
            f"{index.name} has no label {unknown[0]!r} to hold out: "
            f"it has {', '.join(index.classes)}"
        )
    out = np.isin(index.labels, [index.classes.index(label) for label in labels])
    # A group with a held-out document would be divided if its other documents were used.
    return rows[~np.isin(index.groups, index.groups[out])], rows[out]


def _fingerprint(content: str, rows: np.ndarray) -> str:
    """The sha256 over the hash of all documents and the numbers of those taken."""
    return hashlib.sha256(content.encode() + rows.astype("<i4").tobytes()).hexdigest()
