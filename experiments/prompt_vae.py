"""Several answers to one prompt, by drawing a latent: p(answer | prompt, z) and p(z | prompt).

    python -m experiments prompt-vae --manual-dir /usr/share/wordnet
    python -m experiments prompt-vae --corpus mine.jsonl      # {"prompt": ..., "answer": ...}

By default a prompt is a word and its answers are the definitions of its senses in WordNet. A net of
the spelling of the prompt is part of the encoder, the decoder and the prior. `latents` is trained
with free bits and draws a new latent for each answer; `no-latents` is the same decoder without
them, a language model given the prompt. Both are swept over the temperature at which tokens are
drawn, and the language model also over the share of nucleus sampling (top-p), because more various
answers are less usual ones: the rows `at equal perplexity` are mean differences of two curves.

Each point is of `answers` answers to each of `asked` test words with several senses. Distinct-2
and self-BLEU are of the answers to one word. `coverage` is the share of a word's senses that an
answer expresses: it counts for the nearest text by token F1 among the senses and `others`
definitions of other words. `coverage_of_train` is that of words that were trained on.
`sample_perplexity` is that under an n-gram model of held-out answers.

`--preset wordnet-small` has small nets and short answers. Its training took 11 minutes on two CPU
cores that were shared with other work. With one seed, at equal perplexity, expect a self-BLEU that
is 0.04 lower than with temperatures (0.01 than with nucleus sampling), a distinct-2 that is 0.006
lower (0.04), and a coverage of held-out words that is 0.003 higher (0.015). The default settings
have not been run.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax

import aejax as ae
from aejax import evaluation
from aejax import language as lm
from aejax.data import Split
from aejax.data.data_dir import check_trusted
from aejax.data.text.coding import Kind
from aejax.data.text.pairs import WORDNET
from aejax.report import Section, Table
from aejax.types import Variables
from experiments.shared import answers, texts, variational
from experiments.shared.experiment import Experiment, Finished, Members, Models, Page, Splits
from experiments.shared.numbers import Count
from experiments.shared.place import Place, say
from experiments.shared.training import Job, Numbers
from experiments.shared.variational import SAMPLE_SEED

LATENTS, WITHOUT = "latents", "no-latents"
# Name of a curve -> its model, and how the names of its ways to draw a token begin.
CURVES = {
    LATENTS: (LATENTS, "temperature"),
    f"{WITHOUT}, temperature": (WITHOUT, "temperature"),
    f"{WITHOUT}, top-p": (WITHOUT, "top-p"),
}
SHOWN = 6  # the number of prompts whose answers are on the page


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    steps: Count = 2_000  # optimiser steps
    batch: Count = 64  # pairs in a batch
    chunk: Count = 250  # steps in one compiled call
    corpus: str = WORDNET  # wordnet, or a file of JSON lines with prompts and answers
    coding: Kind = "words"  # what a token of an answer is
    vocabulary: Count = 4_000  # largest number of token ids
    length: Count = 13  # largest number of tokens of an answer, with its end; longer: left out
    width: Count = 128  # features of a token, and of a prompt
    latents: Count = 16  # number of latents
    prefix: Count = 2  # vectors that the decoder's net reads
    nats: float = 6.0  # KL in nats that free bits do not penalise
    learning_rate: float = 3e-3  # learning rate of Adam, which falls to zero
    nll_draws: Count = 50  # samples of the importance-weighted NLL
    tested: Count = 500  # number of test pairs of the NLL
    asked: Count = 100  # number of words that are asked
    answers: Count = 10  # number of answers to each word
    others: Count = 50  # number of definitions of other words in `coverage`
    temperatures: tuple[float, ...] = (0.3, 0.5, 0.7, 1.0)  # of the tokens of both models
    shares: tuple[float, ...] = (0.3, 0.6, 0.9)  # of nucleus sampling, of the language model


def data(config: Config, place: Place) -> Splits:
    """Returns train, validation and test answers as rows of token ids, with prompts as context."""
    check_trusted(config.corpus, place.prepared_only and config.corpus != WORDNET)
    return ae.data.pairs(
        config.corpus,
        data_dir=place.data_dir,
        manual_dir=place.manual_dir,
        coding=config.coding,
        size=config.vocabulary,
        length=config.length,
    )


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns name -> `Job`, whose model is made when the train split's vocabulary is known."""
    answers.ways(config.temperatures, config.shares)  # checks them before training
    rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    free = ae.elbo(rate=ae.losses.free_bits(config.nats / config.latents))
    objectives = {LATENTS: ae.merge(free, ae.watch(kl=ae.losses.kl)), WITHOUT: ae.elbo()}
    return {
        name: Job(None, objective, tx, fit=functools.partial(model, config, name))
        for name, objective in objectives.items()
    }


def model(config: Config, name: str, train: Split) -> ae.Autoencoder:
    """Builds the autoencoder of answers given prompts, or the one whose decoder sees no latents."""
    coding, width = texts.coder(train).coding, config.width
    likelihood = ae.likelihoods.Text(coding, ae.nets.CausalGRU(width), config.length, config.prefix)
    out = ae.nets.MLP((width,), shape=likelihood.shape((config.length,)))

    def spelling() -> Any:
        return ae.nets.Spelling(width)

    given = ae.nets.OfContext(ae.nets.Joined((spelling(),), out))
    learned = ae.priors.Conditional((width,), net=spelling())
    prior = ae.priors.Standard() if name == WITHOUT else learned
    return ae.Autoencoder(
        ae.nets.Joined((ae.nets.TokenGRU(coding.size, width), spelling()), ae.nets.MLP((width,))),
        ae.Gaussian(config.latents),
        given if name == WITHOUT else ae.nets.Joined((None, spelling()), out),
        prior,
        likelihood,
    )


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Measures the bounds of both models, and their answers at each way to draw a token."""
    train, _, test = splits
    judge, found = texts.judge(splits), {}
    given = [answers.asked(split, config.asked, config.others) for split in (test, train)]
    for label, done in trained.items():
        say(f"{label}: figures")
        found[label] = variational.bounds(config.nll_draws, done, test.take(config.tested))
        for name, choose in answers.ways(config.temperatures, config.shares).items():
            if label == WITHOUT or name.startswith("temperature"):
                point = functools.partial(_point, config, done.job.model, given, judge, choose)
                row = evaluation.over_seeds(point, done.variables, done.seeds)
                found[f"{label}, {name}"] = row
    rows = {name: _members(found, *which) for name, which in CURVES.items()}
    for name in list(CURVES)[1:]:
        pairs = zip(rows[LATENTS], rows[name], strict=True)
        each = [answers.at_equal_perplexity(*pair) for pair in pairs]
        means = {key: np.array([one[key] for one in each]) for key in answers.MEASURES}
        found[f"{LATENTS} - {name.partition(', ')[2]}, at equal perplexity"] = means
    found["real"] = {"sample_perplexity": judge.real * np.ones(config.seeds)}
    return found


def _point(
    config: Config, model: Any, given: Any, judge: Any, choose: Any, variables: Variables
) -> dict[str, float]:
    test, train = (
        answers.answers(
            model, variables, jax.random.key(SAMPLE_SEED), one.prompts, config.answers, choose
        )
        for one in given
    )
    known = {"coverage_of_train": answers.covered(train, given[1])}
    return answers.measured(test, given[0], judge) | known


def _members(found: Mapping[str, Any], label: str, way: str) -> list[list[dict[str, float]]]:
    """Returns the points of a curve for each seed."""
    rows = [row for name, row in found.items() if name.startswith(f"{label}, {way}")]
    count = len(next(iter(rows[0].values())))
    return [[{key: float(row[key][i]) for key in row} for row in rows] for i in range(count)]


def findings(config: Config, finished: Finished) -> list[Section]:
    """Builds the section with the curves of all seeds' means."""
    groups = {}
    for curve, (label, way) in CURVES.items():
        rows = [r for n, r in finished.result.items() if n.startswith(f"{label}, {way}")]
        groups[curve] = [{key: float(row[key]["mean"]) for key in row} for row in rows]
    return [answers.curves_section(groups)]


def page(config: Config, models: Models, splits: Splits) -> Page:
    """Builds the report page: answers of both models to some test words."""
    given = answers.asked(splits[2], SHOWN, config.others)
    key, choose = jax.random.key(SAMPLE_SEED), lm.Sampling(0.6)
    drawn = {
        name: answers.answers(*both, key, given.prompts, config.answers, choose)
        for name, both in models.items()
    }
    sections = []
    for i, prompt in enumerate(given.prompts):
        senses = "; ".join(" ".join(words) for words in given.known[i])
        rows = list(zip(*(some[i] for some in drawn.values()), strict=True))
        text = f"Its known answers: {senses}. All tokens are drawn at the temperature 0.6."
        sections.append(Section(f"“{prompt}”", text, table=Table(tuple(drawn), rows)))
    return Page(f"Answers of {config.corpus}", __doc__ or "", sections)


SMALL = Config(
    steps=800,
    batch=32,
    vocabulary=2_000,
    length=11,
    width=64,
    tested=200,
    asked=60,
    learning_rate=5e-3,
)

EXPERIMENT = Experiment(
    name="prompt-vae",
    config=Config,
    data=data,
    build=build,
    figures=figures,
    page=page,
    findings=findings,
    presets={"wordnet-small": SMALL},
)
