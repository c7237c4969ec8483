"""Draws texts from trained models of texts, and measures them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax import evaluation
from aejax.data import Split
from aejax.data.text.coding import decode, split_words
from aejax.errors import UserError
from aejax.evaluation import texts as measures
from aejax.evaluation.batches import Static
from aejax.evaluation.ngram import NGram
from aejax.types import Array, Key, Variables
from experiments.shared.paths import linear

SIZE = 100  # the number of texts that are drawn or decoded at a time
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


def samples(model: Any, variables: Variables, key: Key, count: int) -> list[str]:
    """Draws texts: latents from the prior, and a text from each.

    A model without a prior, which is a plain autoencoder, has no samples: the result is [].
    """
    if model.prior is None:
        return []
    keys = jax.random.split(key, -(-count // SIZE))
    drawn = [np.asarray(_sampled(Static(model), variables, own)) for own in keys]
    return decode(coding(model), np.concatenate(drawn)[:count])


def reconstructions(model: Any, variables: Variables, data: Any) -> list[str]:
    """Encodes texts without noise, and returns the most probable text, word by word, of each."""
    return decoded(model, variables, evaluation.latents(model, variables, data))


def decoded(model: Any, variables: Variables, latents: np.ndarray) -> list[str]:
    """Returns the most probable text, word by word, of each latent f[N, L]."""
    rows = []
    for start in range(0, len(latents), SIZE):
        part = latents[start : start + SIZE]
        # The last batch is filled up, so that the program is compiled once.
        full = np.concatenate([part, np.zeros((SIZE - len(part), latents.shape[1]), part.dtype)])
        rows.append(np.asarray(_decoded(Static(model), variables, full))[: len(part)])
    return decode(coding(model), np.concatenate(rows))


def path(model: Any, variables: Variables, ends: np.ndarray, points: int = POINTS) -> list[str]:
    """Returns the texts of points on the line between two latents, f[2, L], with both ends."""
    first, last = jnp.asarray(ends)
    return decoded(model, variables, np.asarray(linear(first, last, jnp.linspace(0, 1, points))))


@functools.partial(jax.jit, static_argnums=0)
def _sampled(static: Static, variables: Variables, key: Key) -> Array:
    bound = static.model.bind(variables)
    first, second = jax.random.split(key)
    return bound.likelihood.sample(second, bound.sample(first, SIZE))


@functools.partial(jax.jit, static_argnums=0)
def _decoded(static: Static, variables: Variables, latents: Array) -> Array:
    bound = static.model.bind(variables)
    return bound.mean(bound.decode(bound.lift(latents)))


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
    """
    real = words(contents(test))
    found = words(reconstructions(model, variables, test))
    return {
        "bleu": measures.bleu(real, found),
        "bleu_of_another": measures.bleu([real[-1], *real[:-1]], found),
        "token_accuracy": measures.token_accuracy(real, found),
    }


def of_paths(model: Any, variables: Variables, test: Split, judge: Judge) -> dict[str, float]:
    """Measures the texts on lines between the codes of neighbouring test texts."""
    codes = evaluation.latents(model, variables, test.take(2 * PATHS))
    found = [path(model, variables, codes[i : i + 2]) for i in range(0, len(codes) - 1, 2)]
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
