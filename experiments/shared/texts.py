"""Draws texts from trained models of texts, and measures them."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax import evaluation
from aejax.data import Split
from aejax.data.text.coding import decode, split_words
from aejax.data.text.corpus import Corpus, digest
from aejax.errors import UserError
from aejax.evaluation import texts as measures
from aejax.evaluation.batches import Static
from aejax.evaluation.ngram import NGram
from aejax.files import write_bytes
from aejax.report import Section, Table
from aejax.report.page import render
from aejax.types import Array, Key, Variables
from experiments.shared.experiment import Models
from experiments.shared.paths import linear

SIZE = 128  # the largest number of texts that are drawn or decoded at a time
PATHS, POINTS = 30, 7  # the number of interpolations, and of texts of each


class Judge(NamedTuple):
    """An n-gram model that judges samples, and its perplexity of real texts."""

    model: NGram  # an n-gram model of held-out texts
    real: float  # its perplexity of texts that it has not seen


def judge(splits: Sequence[Split], order: int = 3) -> Judge:
    """Returns an n-gram model of the words of validation and test, and its perplexity of train."""
    train, validation, test = splits
    seen = [*words(contents(validation)), *words(contents(test))]
    model = NGram(seen, order)
    return Judge(model, model.perplexity(words(contents(train.take(1_000)))))


def some(corpus: Corpus, count: int) -> Corpus:
    """Returns a corpus of at most `count` documents, drawn with a fixed seed."""
    rows = np.sort(np.random.default_rng(0).permutation(len(corpus))[:count])
    documents = [corpus[int(i)] for i in rows]
    labels = None if corpus.labels is None else corpus.labels[rows]
    return dataclasses.replace(
        corpus, documents=documents, labels=labels, fingerprint=digest(documents)
    )


def contents(split: Split) -> list[str]:
    """Returns the texts of a split."""
    return decode(coder(split).coding, split.arrays["x"])


def coder(split: Split) -> Any:
    """Returns how the texts of a split became token ids.

    Raises:
      UserError: if the split was not made by `ae.data.tokens`.
    """
    if split.form is None or split.form.texts is None:
        raise UserError(f"{split.name} holds no texts: make it by ae.data.tokens")
    return split.form.texts


def coding(model: Any) -> Any:
    """Returns the coding of the texts that a model explains; None: it does not explain texts."""
    return None if model.likelihood is None else model.likelihood.text_coding()


def words(texts: Sequence[str]) -> list[list[str]]:
    """Returns the words and marks of each text, in lower case; an unknown word is one word."""
    return [split_words(text.replace("<unk>", " unk ")) for text in texts]


def samples(
    model: Any, variables: Variables, key: Key, count: int, context: Any = None
) -> list[str]:
    """Draws texts: latents from the prior, and a text from each.

    A model without a prior, which is a plain autoencoder, has no samples: the result is [].

    Args:
      model: the model.
      variables: its variables.
      key: the key of the draws.
      count: the number of texts.
      context: the context of all texts, an array without an axis of examples; None: there is none.
    """
    if model.prior is None:
        return []
    size = _size(count)
    keys = jax.random.split(key, -(-count // size))
    given = None if context is None else np.repeat(np.asarray(context)[None], size, axis=0)
    drawn = [np.asarray(_sampled(Static(model), size, variables, own, given)) for own in keys]
    return decode(coding(model), np.concatenate(drawn)[:count])


def reconstructions(model: Any, variables: Variables, data: Any) -> list[str]:
    """Encodes texts without noise, and returns the most probable text, word by word, of each."""
    return decoded(model, variables, evaluation.latents(model, variables, data))


def decoded(
    model: Any, variables: Variables, latents: np.ndarray, context: np.ndarray | None = None
) -> list[str]:
    """Returns the most probable text, word by word, of each latent f[N, L] and context [N, ...]."""
    rows, size = [], _size(len(latents))

    def filled(part: np.ndarray) -> np.ndarray:
        # The last batch is filled up, so that the program is compiled once.
        return np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), part.dtype)])

    for start in range(0, len(latents), size):
        part = latents[start : start + size]
        given = None if context is None else filled(context[start : start + size])
        found = _decoded(Static(model), variables, filled(part), given)
        rows.append(np.asarray(found)[: len(part)])
    return decode(coding(model), np.concatenate(rows))


def path(model: Any, variables: Variables, ends: np.ndarray, points: int = POINTS) -> list[str]:
    """Returns the texts of points on the line between two latents, f[2, L], with both ends."""
    return decoded(model, variables, between(ends[0], ends[1], points))


def between(first: np.ndarray, last: np.ndarray, points: int) -> np.ndarray:
    """Returns points on the line between two latents, f[points, L], with both ends."""
    share = jnp.linspace(0, 1, points)
    return np.asarray(linear(jnp.asarray(first), jnp.asarray(last), share))


def sections(models: Models, test: Split, key: Key) -> list[Section]:
    """Builds the sections of a page: real texts, and samples, reconstructions and a path of models.

    Args:
      models: name -> a model and its variables.
      test: the texts to reconstruct; the path is between the first two.
      key: the key of the samples.
    """
    real = contents(test)
    made = [table("Real texts", "These are the first test texts.", ("text",), [real])]
    for name, (model, variables) in models.items():
        if model.prior is not None:
            drawn = samples(model, variables, key, len(test))
            made.append(table(f"{name}: samples", "", ("text",), [drawn]))
        if model.likelihood.prefix:
            found = reconstructions(model, variables, test)
            titles = ("text", "reconstruction")
            made.append(table(f"{name}: reconstructions", "", titles, [real, found]))
            way = path(model, variables, evaluation.latents(model, variables, test.take(2)))
            says = "The line between the codes of two test texts."
            made.append(table(f"{name}: a path", says, ("text",), [way]))
    return made


def table(title: str, text: str, header: tuple[str, ...], columns: Sequence[Any]) -> Section:
    """Builds a section whose table has the given columns of texts."""
    return Section(title, text, table=Table(header, list(zip(*columns, strict=True))))


def write_page(folder: pathlib.Path, name: str, sections: Sequence[Section]) -> pathlib.Path:
    """Writes sections without pictures as NAME.html to a run's folder; returns its path."""
    path = folder / f"{name}.html"
    write_bytes(path, render(f"{folder.resolve().name}: {name}", sections, {}).encode())
    return path


def _size(count: int) -> int:
    """Returns the number of texts at a time: the next power of two, so that few programs differ."""
    return min(SIZE, 1 << (count - 1).bit_length())


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sampled(static: Static, size: int, variables: Variables, key: Key, context: Any) -> Array:
    bound = static.model.bind(variables)
    first, second = jax.random.split(key)
    return bound.likelihood.sample(second, bound.sample(first, size, context))


@functools.partial(jax.jit, static_argnums=0)
def _decoded(static: Static, variables: Variables, latents: Array, context: Any) -> Array:
    bound = static.model.bind(variables)
    return bound.mean(bound.decode(bound.lift(latents, context), context))


def of_samples(found: Sequence[str], judge: Judge) -> dict[str, float]:
    """Measures drawn texts: perplexity under the judge, distinct n-grams, and self-BLEU."""
    drawn = words(found)
    if not any(len(text) > 1 for text in drawn):
        return {"sample_perplexity": judge.model.perplexity(drawn)}
    return {
        "sample_perplexity": judge.model.perplexity(drawn),
        "distinct_1": measures.distinct(drawn, 1),
        "distinct_2": measures.distinct(drawn, 2),
        "self_bleu": measures.self_bleu(drawn),
    }


def of_reconstructions(model: Any, variables: Variables, test: Split) -> dict[str, float]:
    """Measures reconstructions of a split by the words that they have in common with the texts.

    `bleu_of_another` is the BLEU with the texts one row before, as of a model that ignores x.
    `standard_errors_above_another` is the mean gain of a text's token accuracy over that with
    another text, divided by its standard error.
    """
    real = words(contents(test))
    found = words(reconstructions(model, variables, test))
    others = [real[-1], *real[:-1]]
    gains = np.array(
        [
            measures.token_accuracy([own], [text]) - measures.token_accuracy([other], [text])
            for own, other, text in zip(real, others, found, strict=True)
        ]
    )
    error = gains.std() / max(len(gains), 1) ** 0.5
    return {
        "bleu": measures.bleu(real, found),
        "bleu_of_another": measures.bleu(others, found),
        "token_accuracy": measures.token_accuracy(real, found),
        "token_accuracy_of_another": measures.token_accuracy(others, found),
        "standard_errors_above_another": float(gains.mean() / error) if error else float("nan"),
    }


def paths(model: Any, variables: Variables, test: Split) -> list[list[str]]:
    """Returns the texts on lines between the codes of neighbouring test texts."""
    codes = evaluation.latents(model, variables, test.take(2 * PATHS))
    ends = [codes[i : i + 2] for i in range(0, len(codes) - 1, 2)]
    points = np.concatenate([between(pair[0], pair[1], POINTS) for pair in ends])
    all_texts = decoded(model, variables, points)
    return [all_texts[i : i + POINTS] for i in range(0, len(all_texts), POINTS)]


def of_paths(found: Sequence[Sequence[str]], judge: Judge) -> dict[str, float]:
    """Measures the texts of paths: how evenly they change, and their perplexity."""
    each = [measures.smoothness(words(texts)) for texts in found]
    inner = [text for texts in found for text in texts[1:-1]]
    steps = [one.largest_step for one in each if np.isfinite(one.largest_step)]
    return {
        "path_monotone": float(np.mean([one.monotone for one in each])),
        "path_largest_step": float(np.mean(steps)) if steps else float("nan"),
        "path_perplexity": judge.model.perplexity(words(inner)),
    }


def of_labels(model: Any, variables: Variables, train: Split, test: Split) -> dict[str, float]:
    """Measures how well codes tell the label, by the balanced accuracy of a linear probe."""
    if train.labels is None or test.labels is None:
        return {}
    try:
        found = evaluation.probe(
            evaluation.latents(model, variables, train),
            train.labels,
            evaluation.latents(model, variables, test),
            test.labels,
        )
    except UserError:  # no label has enough texts
        return {}
    return {"probe_accuracy": found.accuracy}
