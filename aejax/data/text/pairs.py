"""Prompts and their answers: a word and the definitions of its senses, or a user's JSON lines.

    train, validation, test = ae.data.pairs("wordnet", manual_dir=..., length=16)
    train, validation, test = ae.data.pairs("mine.jsonl")   # {"prompt": ..., "answer": ...}

x are the token ids of the answer, and the context is the bytes of the prompt. All answers to one
prompt stand in one split.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from aejax.data.splitting import PARTS, Splits, divide
from aejax.data.text.corpus import Corpus, Document, Texts, digest
from aejax.data.text.folder import LINES
from aejax.data.text.prepare import Joined
from aejax.data.text.source import read_lines
from aejax.data.text.texts import texts
from aejax.data.text.tokens import tokens
from aejax.errors import UserError
from aejax.files import parse_json

WORDNET = "wordnet"


def pairs(
    name_or_path: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    **how: Any,
) -> Splits:
    """Returns train, validation and test, whose x are answers and whose context are prompts.

    The prompts of WordNet are words, in lower case, and their answers are the definitions of the
    synsets that begin with the word, without examples.

    Args:
      name_or_path: "wordnet", or a file that ends in .jsonl or .ndjson, each line of which is
        {"prompt": ..., "answer": ...}.
      data_dir: the folder of prepared data sets; by default that of tensorflow-datasets.
      manual_dir: the folder with WordNet's files, needed until it is prepared.
      validation: the share (below 1) or the number of the pairs in the validation split.
      test: the share or the number of the pairs in the test split.
      seed: the seed of the random division.
      **how: the coding and length of the answers, as in `ae.data.tokens`.

    Raises:
      UserError: if the name is unknown, the file is missing, a line is no such object, or there are
        too few prompts for three splits.
    """
    path = Path(name_or_path).expanduser()
    if str(name_or_path) == WORDNET:
        found = texts(WORDNET, data_dir=data_dir, manual_dir=manual_dir, seed=seed,
                      validation=validation, test=test)  # fmt: skip
        corpora = [_changed(corpus, [_sense(one) for one in corpus]) for corpus in found[:3]]
    elif path.suffix.lower() in LINES and path.is_file():
        corpora = _divided(path, {"validation": validation, "test": test}, seed)
    else:
        raise UserError(
            f"there are no prompts and answers {str(name_or_path)!r}: give 'wordnet', or a file of "
            f'JSON lines ({" ".join(LINES)}) of the form {{"prompt": ..., "answer": ...}}'
        )
    train, valid, tested = corpora
    return tokens(Texts(train, valid, tested, None), prompt=lambda document: document.id, **how)


def prompts_of(split: Any) -> list[str]:
    """Returns the prompt of each example of a split that `pairs` made."""
    return [bytes(int(i) - 2 for i in row if i > 1).decode(errors="replace")
            for row in np.asarray(split.arrays["context"])]  # fmt: skip


def _changed(corpus: Corpus, documents: list[Document]) -> Corpus:
    return dataclasses.replace(
        corpus, documents=documents, labels=None, classes=(), fingerprint=digest(documents)
    )


def _sense(document: Document) -> Document:
    """Returns the word and the definition of a synset, from its id `word.kind.offset`."""
    word = document.id.rsplit(".", 2)[0].replace("_", " ").lower()
    return Document(word, document.text.partition('; "')[0])


def _divided(path: Path, shares: dict[str, float], seed: int) -> list[Corpus]:
    documents, joined = list(_read(path)), Joined()
    for document in documents:
        # An answer to two prompts would tell a model of one split a text of another.
        joined.add([f"prompt {document.id.lower()}", f"answer {document.text}"])
    groups = joined.numbers()
    rows = np.arange(len(documents))
    if len(set(groups.tolist())) < 3:
        raise UserError(
            f"{path} has {len(documents)} pairs, which are too few for three splits without a "
            "common prompt or answer: give three prompts or more"
        )
    parts = divide({"row": rows}, str(path), shares=shares, seed=seed, groups=groups)
    return [
        Corpus(f"{path.stem}/{name}", own, fingerprint=digest(own), origin="JSON lines")
        for name, part in zip(PARTS, parts, strict=True)
        for own in [[documents[i] for i in part["row"]]]
    ]


def _read(path: Path) -> Iterator[Document]:
    for number, (_, line) in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            fields = parse_json(line)
        except ValueError as error:
            raise UserError(f"line {number} of {path} is not JSON ({error})") from error
        fields = fields if isinstance(fields, dict) else {}
        prompt, answer = fields.get("prompt"), fields.get("answer")
        if not all(isinstance(text, str) and text.strip() for text in (prompt, answer)):
            raise UserError(
                f"line {number} of {path} lacks a prompt or an answer that is not blank: write "
                '{"prompt": ..., "answer": ...}'
            )
        yield Document(str(prompt).strip(), str(answer).strip())
