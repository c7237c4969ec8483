"""Activations and labelled tokens of a language model, for the experiments on its dictionaries.

The train store holds activations of the train documents of several corpora, without attention
sinks. The validation and test stores hold all tokens of documents of the first corpus, with their
labels, so that the rows of tokens can be restored and given to the language model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from aejax import language as lm
from aejax.data import texts
from aejax.data.activations import Activations, ActivationWriter, TokenFilter, activations
from aejax.data.activations.index import FILE, read_index
from aejax.data.activations.tokens import Selected
from aejax.data.data_dir import check_prepared, check_trusted, default_data_dir
from aejax.data.split import Split
from aejax.data.text import NAMED, Corpus, Document
from aejax.errors import UserError
from aejax.language.alignment import align
from experiments.shared.experiment import Splits
from experiments.shared.numbers import Count
from experiments.shared.place import Place, say
from experiments.shared.training import Numbers

ROWS = 16  # the number of rows in one forward pass
SHARD = 2**13  # tokens in a file of a store; an interrupted run loses at most one file
SINK = 10.0  # a token is an attention sink if its norm exceeds this multiple of the median norm
# What is stored with each token of the validation and test stores: indices, or -1 for none.
LABELS = ("token", "document", "tag", "topic", "place")


@dataclasses.dataclass(frozen=True)
class LanguageNumbers(Numbers):
    """The settings of the experiments on dictionaries of a language model; each is a flag."""

    steps: Count = 10_000  # optimiser steps
    batch: Count = 2_048  # tokens in a batch
    chunk: Count = 100  # steps in one compiled call
    log_every: Count = 50  # steps between two lines of metrics.jsonl
    model: str = "models/SmolLM2-135M-Instruct.Q4_1.gguf"  # a GGUF file or a Hugging Face folder
    # Train documents of all corpora are read in turn; evaluation is on documents of the first one.
    corpora: tuple[str, ...] = ("brown", "wordnet", "bible")
    tokens: Count = 2_000_000  # train tokens; fewer are read if the corpora have fewer
    # validation tokens on which probes and rules are fitted; there are as many test tokens
    labelled: Count = 65_536
    evaluated: Count = 16_384  # test tokens on which the losses of the language model are measured
    length: Count = 128  # tokens in a row
    # words of the first-letter task; its probes are fitted on half of them; 0: the task is left out
    words: int = 1_560
    latents: Count = 4_608  # latents of each dictionary
    l0: Count = 32  # active latents of a token


def check_sizes(config: LanguageNumbers) -> None:
    """Raises UserError unless latents and l0 are 1 or more, and l0 is not above latents."""
    if config.l0 > config.latents:
        raise UserError(
            f"--l0 is {config.l0}: give at most {config.latents}, the value of --latents"
        )


def data(
    config: LanguageNumbers,
    place: Place,
    x: str,
    target: str | None = None,
    context: str | None = None,
) -> Splits:
    """Returns train, validation and test activations, after collecting them if necessary.

    Args:
      config: the settings.
      place: the folders; its `data_dir` contains the stores.
      x: the hook that the encoder reads.
      target: the hook to reconstruct; None: x.
      context: the hook that the decoder reads besides z; None: none.
    """
    if config.labelled < config.length:
        raise UserError(
            f"--labelled is {config.labelled}, which is fewer tokens than one row of "
            f"{config.length}: give more"
        )
    if config.words < 0:
        raise UserError(f"--words is {config.words}: give 0 or more")
    if not config.corpora:
        raise UserError("--corpora is empty: name one corpus or more, such as brown")
    hooks = tuple(dict.fromkeys(hook for hook in (x, target) if hook is not None))
    stores = collected(config, place, hooks)
    parts = ("train", "validation", "test")
    how: dict[str, Any] = {"target": target, "context": context}
    made = [
        store.split(x, part=part, where=None if part == "train" else kept(store), **how)
        for part, store in zip(parts, stores, strict=True)
    ]
    return made[0], made[1], made[2]


def collected(
    config: LanguageNumbers, place: Place, hooks: Sequence[str]
) -> tuple[Activations, Activations, Activations]:
    """Returns the activation stores of train, validation and test documents.

    A store that does not exist, or is not complete, is written first.
    """
    root = default_data_dir() if place.data_dir is None else pathlib.Path(place.data_dir)
    check_trusted(config.model, place.prepared_only)
    for name in config.corpora:
        check_trusted(name, place.prepared_only and name not in NAMED)
    model = {"file": pathlib.Path(config.model).name, "sha256": lm.fingerprint(config.model)}
    sources = [
        texts(name, data_dir=place.data_dir, manual_dir=place.manual_dir) for name in config.corpora
    ]
    train = [source.train for source in sources]
    about = {"model": model, "length": config.length, "hooks": list(hooks)}
    plans = {
        "train": {**about, "corpora": [c.provenance() for c in train], "tokens": config.tokens},
        **{
            part: {**about, "corpus": corpus.provenance(), "tokens": config.labelled}
            for part, corpus in (("validation", sources[0].validation), ("test", sources[0].test))
        },
    }
    folders = {part: root.expanduser() / "language" / _name(part, p) for part, p in plans.items()}
    if any(not _complete(folder) for folder in folders.values()):
        check_prepared("language", root, place.prepared_only)
        net, variables, tokenizer = lm.load(config.model)
        read = lm.reader(net, variables, hooks)
        _collect(config, tokenizer, read, train, folders["train"], plans["train"])
        for part, corpus in (("validation", sources[0].validation), ("test", sources[0].test)):
            _label(config, tokenizer, read, corpus, folders[part], plans[part])
    train_, validation, test = (activations(folders[part]) for part in plans)
    return train_, validation, test


def _name(part: str, plan: Any) -> str:
    return f"{part}-{hashlib.sha256(json.dumps(plan).encode()).hexdigest()[:12]}"


def _complete(folder: pathlib.Path) -> bool:
    return (folder / FILE).is_file() and read_index(folder).complete


def _collect(
    config: LanguageNumbers,
    tokenizer: lm.Tokenizer,
    read: Any,
    corpora: Sequence[Corpus],
    folder: pathlib.Path,
    plan: Any,
) -> None:
    """Writes the store of train activations, or continues to write it after an interruption."""
    most = -(-config.tokens // (ROWS * config.length))
    packing = lm.Packing(config.length)
    began = time.perf_counter()
    first: list[int] = []

    def batches(start: int) -> Iterator[lm.Packed]:
        made = lm.packs(tokenizer, in_turn(corpora), packing, ROWS, start)
        return itertools.islice(made, max(0, most - start))

    def progress(done: int) -> None:
        first.append(done)
        if done % 20 == 0:
            rate = (done - first[0]) * ROWS * config.length / (time.perf_counter() - began)
            say(f"{done * ROWS * config.length:,} train tokens read, {rate:,.0f} a second")

    keep = TokenFilter(first_positions=1, norm_median=SINK)
    how: dict[str, Any] = {"filter": keep, "shard_tokens": SHARD, "progress": progress}
    lm.collect(read, batches, folder, provenance=plan, **how)


def in_turn(corpora: Sequence[Corpus]) -> Iterator[str]:
    """Yields texts of several corpora, each from the one with the fewest characters so far.

    The documents of a corpus are shuffled, because Brown is in the order of its genres.
    """
    waiting = [(shuffled(corpus), i) for i, corpus in enumerate(corpora)]
    given = [0] * len(corpora)
    while waiting:
        source, i = min(waiting, key=lambda entry: given[entry[1]])
        document = next(source, None)
        if document is None:
            waiting = [entry for entry in waiting if entry[1] != i]
            continue
        given[i] += len(document.text)
        yield document.text


def shuffled(corpus: Corpus) -> Iterator[Document]:
    """Yields the documents of a corpus in a fixed random order."""
    for i in np.random.default_rng(0).permutation(len(corpus)):
        yield corpus[int(i)]


def _label(
    config: LanguageNumbers,
    tokenizer: lm.Tokenizer,
    read: Any,
    corpus: Corpus,
    folder: pathlib.Path,
    plan: Any,
) -> None:
    """Writes the store of a labelled corpus, or continues to write it after an interruption.

    Only the first tokens of each document are stored, so that all topics occur.
    """
    tags = sorted({simple(tag) for document in corpus for tag in document.tags})
    names = {"tags": tags, "topics": list(corpus.classes)}
    each = max(config.length, -(-config.labelled // len(corpus)))
    documents: list[dict[str, np.ndarray]] = []
    count = 0
    for document in shuffled(corpus):
        found = labelled(tokenizer, document, tags, corpus.classes)
        documents.append({name: values[:each] for name, values in found.items()})
        count += len(documents[-1]["token"])
        if count >= config.labelled:
            break
    columns = {
        name: np.concatenate([document[name] for document in documents])
        for name in LABELS
        if name != "document"
    }
    owner = [np.full(len(d["token"]), i, np.int32) for i, d in enumerate(documents)]
    columns["document"] = np.concatenate(owner)
    rows = min(len(columns["token"]), config.labelled) // config.length
    if rows < 1:
        raise UserError(
            f"{corpus.name} has fewer tokens than one row of {config.length}: give a larger corpus"
        )
    shaped = {
        name: values[: rows * config.length].reshape(rows, config.length)
        for name, values in columns.items()
    }
    about = {**plan, **names}
    with ActivationWriter(folder, provenance=about, shard_tokens=SHARD) as writer:
        if writer.index.complete:
            return
        for start in range(writer.appends * ROWS, rows, ROWS):
            some = {name: values[start : start + ROWS] for name, values in shaped.items()}
            # All passes have one shape, so that the program is compiled once.
            tokens = np.zeros((ROWS, config.length), np.int32)
            tokens[: len(some["token"])] = some["token"]
            seen = read(tokens, np.broadcast_to(np.arange(config.length), tokens.shape))
            found = {hook: np.asarray(v)[: len(some["token"])] for hook, v in seen.items()}
            writer.append(found, columns=some)
    say(f"{rows * config.length:,} tokens of {corpus.name}")


def simple(tag: str) -> str:
    """Returns the part of speech that a tag of the Brown corpus begins with.

    Suffixes for titles, headlines and foreign words, contractions and negations are left out:
    "nn-tl" and "nn$" become "nn", "ppss+bem" becomes "ppss", and punctuation becomes "punct".
    """
    start = tag.lower().removeprefix("fw-").split("-")[0].split("+")[0].rstrip("*$")
    return start if start.isalpha() else "punct"


def labelled(
    tokenizer: lm.Tokenizer, document: Document, tags: Sequence[str], topics: Sequence[str]
) -> dict[str, np.ndarray]:
    """Returns the n tokens of a document and their labels: all in LABELS but "document", i32[n].

    The last token of a word has the word's part of speech as its tag; all other tokens have -1.
    """
    found = align(tokenizer, document.text)
    number = {tag: i for i, tag in enumerate(tags)}
    own = np.array([number[simple(tag)] for tag in document.tags] or [-1], np.int32)
    tag = np.where(found.last & bool(document.tags), own[np.minimum(found.word, len(own) - 1)], -1)
    topic = -1 if document.label is None else list(topics).index(document.label)
    return {
        "token": found.tokens,
        "tag": tag.astype(np.int32),
        "topic": np.full(len(tag), topic, np.int32),
        "place": found.place,
    }


def store_of(split: Split) -> Activations:
    """Returns the whole store that a split was taken from."""
    array: Any = next(iter(split.arrays.values()))
    array = array.tokens if isinstance(array, Selected) else array
    return activations(array.paths[0].parent)


def kept(store: Activations) -> np.ndarray:
    """Returns whether each token of a store with labels is no attention sink, bool[N].

    Sinks are the first token of each row of text, and tokens whose norm at any of the hooks exceeds
    SINK times the median norm at this hook.
    """
    found = store.column("position") > 0
    for hook in store.hooks:
        norms = store.norms(hook)
        found &= norms <= SINK * np.median(norms)
    return found


class Labelled(NamedTuple):
    """All tokens of an activation store with their labels, as R rows of P tokens each."""

    token: np.ndarray  # i32[R, P]
    document: np.ndarray  # i32[R, P]
    tag: np.ndarray  # i32[R, P], the part of speech at the last token of a word; -1: none
    topic: np.ndarray  # i32[R, P], the label of the document; -1: none
    place: np.ndarray  # i32[R, P], the number of words before the token's word in its line; or -1
    kept: np.ndarray  # bool[R, P], whether the token is no attention sink
    tags: tuple[str, ...]  # the names of the parts of speech
    topics: tuple[str, ...]  # the names of the topics
    store: Activations

    def values(self, hook: str) -> np.ndarray:
        """Returns the activations at a hook, f32[R, P, D]."""
        tokens = self.store.tokens(hook)
        return tokens.read(0, len(tokens)).astype(np.float32).reshape(*self.token.shape, -1)

    def packed(self, most: int) -> Iterator[lm.Packed]:
        """Yields the rows that hold the first `most` tokens, in batches of ROWS rows."""
        rows, length = self.token.shape
        count = max(1, min(rows, most // length) // ROWS) * ROWS
        for start in range(0, min(count, rows), ROWS):
            token = self.token[start : start + ROWS]
            position = np.broadcast_to(np.arange(length, dtype=np.int32), token.shape)
            yield lm.Packed(token, position, self.document[start : start + ROWS])


def rows_of(split: Split) -> Labelled:
    """Returns all tokens, with labels, of the activation store that a split was taken from."""
    store = store_of(split)
    length = int(store.column("position").max()) + 1
    columns = {name: store.column(name).reshape(-1, length) for name in LABELS}
    about: Any = store.index.settings["provenance"]
    return Labelled(
        **columns,
        kept=kept(store).reshape(-1, length),
        tags=tuple(about["tags"]),
        topics=tuple(about["topics"]),
        store=store,
    )
