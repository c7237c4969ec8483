"""Texts with a chosen topic: drawn given it, moved to another one, and by arithmetic of codes.

    python -m experiments text-control --manual-dir /usr/share/wordnet

The texts are those of the `topics` most frequent labels. The encoder and the decoder of `given`
also read the topic, so that its code need not hold it; a text is moved by decoding its code with
another topic. `vectors` does not know the topic: a text is moved by adding to its code the mean
code of the other topic and subtracting that of its own.

The topic of a text is judged by Naive Bayes of the words of train texts, which is no part of a
model. `topic_of_samples` is the share of texts drawn for a topic that are judged to have it;
`topic_moved` that of moved texts with the other topic, and `topic_before` that of the same texts
reconstructed with their own. `kept_bleu` compares moved texts with the originals, and `bleu` those
that are reconstructed. `real` has the share of test texts whose topic is judged right. No run has
been kept yet.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

import aejax as ae
from aejax import evaluation
from aejax.data import Split, changed, changes
from aejax.data.data_dir import check_trusted
from aejax.data.text import NAMED, Corpus, Texts
from aejax.data.text.coding import Kind
from aejax.data.text.corpus import digest
from aejax.errors import UserError
from aejax.evaluation import texts as measures
from aejax.evaluation.ngram import NGram
from aejax.types import Variables
from experiments.shared import texts, variational
from experiments.shared.experiment import Experiment, Members, Models, Page, Splits
from experiments.shared.numbers import Count
from experiments.shared.place import Place, say
from experiments.shared.training import Job, Numbers
from experiments.shared.variational import SAMPLE_SEED

GIVEN, VECTORS = "given", "vectors"
SHOWN = 10  # the number of moved texts on the page


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    steps: Count = 1_500  # optimiser steps
    batch: Count = 32  # texts in a batch
    chunk: Count = 250  # steps in one compiled call
    corpus: str = "wordnet"  # wordnet, brown, bible, a folder of folders of texts, or JSON lines
    topics: Count = 6  # number of topics, the most frequent ones
    coding: Kind = "words"  # what a token is
    vocabulary: Count = 2_000  # largest number of token ids
    length: Count = 16  # largest number of tokens of a text, with its end; longer: left out
    width: Count = 64  # features of a token
    latents: Count = 16  # number of latents
    prefix: Count = 2  # vectors that the decoder reads from the latents
    nats: float = 8.0  # KL in nats that free bits do not penalise
    learning_rate: float = 3e-3  # learning rate of Adam
    nll_draws: Count = 20  # samples of the importance-weighted NLL
    tested: Count = 200  # number of test texts to evaluate
    samples: Count = 100  # number of drawn texts of each topic


def data(config: Config, place: Place) -> Splits:
    """Returns train, validation and test texts of the most frequent topics, with their topics.

    Raises:
      UserError: if the corpus has no labels, or fewer than two.
    """
    check_trusted(config.corpus, place.prepared_only and config.corpus not in NAMED)
    found = ae.data.texts(config.corpus, data_dir=place.data_dir, manual_dir=place.manual_dir)
    labels = found.train.labels
    if labels is None or len(np.unique(labels)) < 2 or config.topics < 2:
        raise UserError(
            f"text-control needs texts of two topics or more, but {config.corpus} has "
            f"{0 if labels is None else len(np.unique(labels))} and --topics is {config.topics}: "
            "give each text a label"
        )
    chosen = np.sort(np.argsort(-np.bincount(labels), kind="stable")[: config.topics])
    parts = [_of_topics(part, chosen) for part in found[:3]]
    return ae.data.tokens(
        Texts(parts[0], parts[1], parts[2], None),
        config.coding,
        size=config.vocabulary,
        length=config.length,
    )


def _of_topics(corpus: Corpus, chosen: np.ndarray) -> Corpus:
    """Returns the documents with some labels, whose new labels are their places among these."""
    labels = np.asarray(corpus.labels)
    rows = np.flatnonzero(np.isin(labels, chosen))
    documents = [corpus[int(i)] for i in rows]
    return dataclasses.replace(
        corpus,
        documents=documents,
        labels=np.searchsorted(chosen, labels[rows]).astype(np.int32),
        classes=tuple(corpus.classes[i] for i in chosen),
        fingerprint=digest(documents),
    )


def given_topic(split: Split) -> Split:
    """Returns a split whose context is the topic."""
    return changed(split, changes.Labels(len(split.classes)))


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns name -> `Job`, whose model is made when the train split's vocabulary is known."""
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(config.learning_rate))
    free = ae.elbo(rate=ae.losses.free_bits(config.nats / config.latents))
    job = Job(
        None,
        ae.merge(free, ae.watch(kl=ae.losses.kl)),
        tx,
        fit=functools.partial(model, config),
    )
    return {GIVEN: job._replace(view=given_topic), VECTORS: job}


def model(config: Config, train: Split) -> ae.Autoencoder:
    """Builds the autoencoder; encoder and decoder read the topic if it is in the context."""
    coding = texts.coder(train).coding
    net = ae.nets.CausalGRU(config.width)
    likelihood = ae.likelihoods.Text(coding, net, config.length, config.prefix)
    return ae.Autoencoder(
        ae.nets.TokenGRU(coding.size, config.width),
        ae.Gaussian(config.latents),
        ae.nets.MLP((config.width,), shape=likelihood.shape((config.length,))),
        ae.priors.Standard(),
        likelihood,
    )


class Judge:
    """Naive Bayes: a model of single words for each topic, whose prior is equal.

    Args:
      train: the texts from which it learns, with labels.
    """

    def __init__(self, train: Split):
        words, labels = texts.words(texts.contents(train)), np.asarray(train.labels)
        self.models = [
            NGram([text for text, label in zip(words, labels, strict=True) if label == topic], 1)
            for topic in range(len(train.classes))
        ]

    def share(self, found: Sequence[str], topics: np.ndarray) -> float:
        """Returns the share of texts that are judged to have the given topics, i[N]."""
        scores = [[one.log_prob(text) for one in self.models] for text in texts.words(found)]
        return float(np.mean(np.argmax(scores, axis=1) == topics))


def moved(
    name: str, model: Any, variables: Variables, train: Split, test: Split, topics: np.ndarray
) -> list[str]:
    """Returns test texts moved to other topics, i[N]."""
    own, count = np.asarray(test.labels), len(test.classes)
    if name == GIVEN:
        codes = evaluation.latents(model, variables, given_topic(test))
        return texts.decoded(model, variables, codes, np.eye(count, dtype=np.float32)[topics])
    seen = train.take(5_000)
    known = evaluation.latents(model, variables, seen)
    middle = known.mean(axis=0)
    labels = np.asarray(seen.labels)
    means = np.stack(
        [known[labels == i].mean(axis=0) if (labels == i).any() else middle for i in range(count)]
    )
    codes = evaluation.latents(model, variables, test)
    return texts.decoded(model, variables, codes + means[topics] - means[own])


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Measures both models on the first test texts."""
    train, _, test = splits
    test, judge = test.take(config.tested), Judge(train)
    found: dict[str, Any] = {}
    for name, done in trained.items():
        say(f"{name}: figures")
        bounds = variational.bounds(config.nll_draws, done, done.job.view(test))
        measured = functools.partial(_measured, config, name, done.job.model, train, test, judge)
        found[name] = {**bounds, **evaluation.over_seeds(measured, done.variables, done.seeds)}
    right = judge.share(texts.contents(test), np.asarray(test.labels))
    found["real"] = {"topic_right": right * np.ones(config.seeds)}
    return found


def _measured(
    config: Config,
    name: str,
    model: Any,
    train: Split,
    test: Split,
    judge: Judge,
    variables: Variables,
) -> dict[str, float]:
    own, count = np.asarray(test.labels), len(test.classes)
    others = (own + 1) % count
    real = texts.words(texts.contents(test))
    found = {}
    for word, topics in (("before", own), ("moved", others)):
        made = moved(name, model, variables, train, test, topics)
        found[f"topic_{word}"] = judge.share(made, topics)
        score = measures.bleu(real, texts.words(made))
        found["bleu" if word == "before" else "kept_bleu"] = score
    if name == GIVEN:
        drawn = [_drawn(config, model, variables, i, count) for i in range(count)]
        pairs = [judge.share(some, np.full(len(some), i)) for i, some in enumerate(drawn)]
        found["topic_of_samples"] = float(np.mean(pairs))
    return found


def _drawn(config: Config, model: Any, variables: Variables, topic: int, count: int) -> list[str]:
    key = jax.random.fold_in(jax.random.key(SAMPLE_SEED), topic)
    context = np.eye(count, dtype=np.float32)[topic]
    return texts.samples(model, variables, key, config.samples, context)


def page(config: Config, models: Models, splits: Splits) -> Page:
    """Builds the report page: texts drawn for each topic, and texts moved to other topics."""
    train, _, test = splits
    test, names = test.take(SHOWN), splits[0].classes
    small = dataclasses.replace(config, samples=SHOWN)
    drawn = [_drawn(small, *models[GIVEN], i, len(names)) for i in range(len(names))]
    sections = [texts.table("Samples given a topic", "", names, drawn)]
    own = np.asarray(test.labels)
    others = (own + 1) % len(names)
    for name, both in models.items():
        columns = [
            texts.contents(test),
            [names[i] for i in own],
            moved(name, *both, train, test, own),
            [names[i] for i in others],
            moved(name, *both, train, test, others),
        ]
        header = ("text", "topic", "reconstruction", "other topic", "moved")
        sections.append(texts.table(f"{name}: moved texts", "", header, columns))
    return Page(f"Topics of {config.corpus}", __doc__ or "", sections)


EXPERIMENT = Experiment(
    name="text-control", config=Config, data=data, build=build, figures=figures, page=page
)
