"""Encodes the texts of a corpus as rows of token ids, which are splits like any other.

    texts = ae.data.texts("wordnet", manual_dir=...)
    train, validation, test = ae.data.tokens(texts, "words", length=24)
    coding = train.form.texts.coding                # for the likelihood: Text(coding, ...)
    new = ae.data.rows(["a small dog"], like=train)

The vocabulary is made from the texts of train alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from aejax.checks import at_least
from aejax.data import splitting
from aejax.data.form import Form
from aejax.data.splitting import Splits
from aejax.data.text.coding import UNKNOWN, Bytes, Coding, Kind, Words, encode, learned
from aejax.data.text.corpus import Corpus, Document, Texts
from aejax.errors import UserError

PROMPT = 32  # the number of ids of a prompt, which includes its end


@dataclasses.dataclass(frozen=True)
class Coder:
    """How the texts of a training split became rows of token ids; it encodes new texts alike."""

    coding: Coding
    length: int  # the number of ids of a row
    long: Literal["cut", "refuse"]  # what happens to longer texts

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Encodes texts as rows of token ids, i32[N, length].

        Raises:
          UserError: if a text is empty, too long and to be refused, or of unknown words only.
        """
        rows = encode(self.coding, texts, self.length, self.long)
        if isinstance(self.coding, Words):
            unknown = (rows <= UNKNOWN).all(axis=1)
            if unknown.any():
                row = int(np.argmax(unknown))
                raise UserError(
                    f"text {row} ({texts[row][:40]!r}) has no known word: leave it out, or use a "
                    "larger vocabulary, or the coding 'bytes' or 'pieces'"
                )
        return rows


def tokens(
    texts: Texts,
    coding: Kind | Coding = "words",
    *,
    size: int = 4_000,
    length: int = 32,
    long: Literal["cut", "refuse", "omit"] = "omit",
    prompt: Callable[[Document], str] | None = None,
) -> Splits:
    """Encodes a corpus as three splits of token ids, i32[N, length].

    Args:
      texts: the corpus, as `aejax.data.texts` returns it.
      coding: "bytes", "words" or "pieces", with a vocabulary from the texts of train; or a coding.
      size: the largest number of token ids of the vocabulary.
      length: the number of ids of a row, which includes the end of the text.
      long: what happens to texts of more tokens: "omit" leaves them out, "cut" keeps their first
        tokens, and "refuse" raises an error. What was left out or cut is printed, and recorded in
        `Split.facts`.
      prompt: document -> the text that it answers, whose bytes become the context, i32[N, PROMPT];
        longer ones are cut. None: there is no context.

    Returns:
      Train, validation and test, with the labels of the corpus. Texts of unknown words only are
      left out.

    Raises:
      UserError: if a split is empty, a text is empty, or too long and to be refused.
    """
    at_least(3, "length", length)
    if long not in ("cut", "refuse", "omit"):
        raise UserError(f"long is {long!r}: give 'cut', 'refuse' or 'omit'")
    contents = [[document.text for document in corpus] for corpus in texts[:3]]
    if isinstance(coding, str):
        coding = learned(coding, contents[0], size)
    coder = Coder(coding, length, "refuse" if long == "refuse" else "cut")
    classes = texts.train.classes
    parts, facts = [], []
    for corpus, content in zip(texts[:3], contents, strict=True):
        columns, fact = _encoded(corpus, content, coder, long == "omit", prompt)
        parts.append(columns)
        facts.append(fact)
    made = splitting.splits(
        texts.train.name.rpartition("/")[0],
        parts,
        field="x",
        scale=1.0,
        binarise="none",
        classes=classes,
        origin=texts.train.origin,
        integers=True,
        context=None if prompt is None else "context",
    )
    form = Form((length,), True, "last", 1.0, None, None, classes, texts=coder)
    train, validation, test = (
        dataclasses.replace(split, facts=fact, form=form)
        for split, fact in zip(made, facts, strict=True)
    )
    return train, validation, test


def prompts(texts: Sequence[str]) -> np.ndarray:
    """Encodes prompts as rows of their bytes, i32[N, PROMPT], which are cut if they are longer.

    Raises:
      UserError: if a prompt is empty.
    """
    return encode(Bytes(), texts, PROMPT, "cut", " of the prompts")


def _encoded(
    corpus: Corpus, content: list[str], coder: Coder, omit: bool, prompt: Any
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the columns of one split, and facts about the texts left out, to be recorded."""
    counts = np.array([len(coder.coding.ids(text)) for text in content], int)
    kept = counts < coder.length if omit else np.ones(len(content), bool)
    rows = encode(
        coder.coding,
        [text for text, keep in zip(content, kept, strict=True) if keep],
        coder.length,
        coder.long,
        f" of {corpus.name}",
    )
    known = (rows > UNKNOWN).any(axis=1) if isinstance(coder.coding, Words) else rows[:, 0] > 0
    if not known.any():
        raise UserError(
            f"{corpus.name} has no text of fewer than {coder.length} tokens with a known word: "
            "give a larger length or vocabulary, or more texts"
        )
    columns = {"x": rows[known]}
    if corpus.labels is not None:
        columns["y"] = corpus.labels[kept][known].astype(np.int32)
    if prompt is not None:
        asked = [prompt(document) for document in corpus]
        columns["context"] = prompts(asked)[kept][known]
    found = columns["x"]
    return columns, {
        "texts": len(content),
        "left_out_as_too_long": int((~kept).sum()),
        "left_out_as_unknown": int((~known).sum()),
        "tokens": int((found > 0).sum()),
        "unknown_tokens": int((found == UNKNOWN).sum()) if isinstance(coder.coding, Words) else 0,
        "coding": type(coder.coding).__name__,
        "vocabulary": coder.coding.size,
    }
