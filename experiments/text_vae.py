"""Text autoencoders with each remedy against posterior collapse, beside a language model.

    python -m experiments text-vae
    python -m experiments text-vae --preset wordnet --manual-dir /usr/share/wordnet

By default the texts are the sentences of Python's own help, which need no download. An encoder maps
a text to a vector, from which a decoder that also sees the words before each word explains it. Such
a decoder can do without the vector, so the plain ELBO collapses. All remedies have the same nets
and steps. `no-latents` is the same decoder alone, a language model; `plain` is an autoencoder
without a prior; `high-rate` pays a tenth of the rate, which is another operating point.

`nll` is importance-weighted, per text. `perplexity` is exp(nll / tokens). Reconstructions and paths
take the most probable word at each place. Samples and paths are judged by an n-gram model of the
held-out texts, which is no part of any model; `real` has its perplexity of real texts.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np
import optax

import aejax as ae
from aejax import evaluation
from aejax.data import Split
from aejax.data.data_dir import check_trusted
from aejax.data.text import NAMED
from aejax.data.text.coding import Kind
from aejax.objective import cyclical
from aejax.types import Objective, Variables
from experiments.shared import texts, variational
from experiments.shared.experiment import Experiment, Members, Models, Page, Splits
from experiments.shared.numbers import Count
from experiments.shared.place import Place, say
from experiments.shared.training import Job, Numbers
from experiments.shared.variational import SAMPLE_SEED

WITHOUT, PLAIN = "no-latents", "plain"
HIGH_RATE = 0.1  # the weight of the rate of `high-rate`
SHOWN = 10  # the number of samples and reconstructions on the page


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    steps: Count = 1_500  # optimiser steps
    batch: Count = 32  # texts in a batch
    chunk: Count = 250  # steps in one compiled call
    corpus: str = "topics"  # topics, wordnet, brown, bible, a folder of texts, or JSON lines
    coding: Kind = "words"  # what a token is
    vocabulary: Count = 2_000  # largest number of token ids
    length: Count = 24  # largest number of tokens of a text, with its end; longer ones are left out
    texts: int = 0  # number of train texts, from the first one; 0: all
    net: Literal["gru", "transformer"] = "gru"  # nets of encoder and decoder
    width: Count = 64  # features of a token
    layers: Count = 2  # blocks of each transformer
    latents: Count = 16  # number of latents
    prefix: Count = 2  # vectors that the decoder reads from the latents
    nats: float = 4.0  # KL in nats that free bits do not penalise, and least distance of means
    learning_rate: float = 3e-3  # learning rate of Adam
    nll_draws: Count = 50  # samples of the importance-weighted NLL
    tested: Count = 500  # number of test texts to evaluate, starting with the first
    samples: Count = 200  # number of drawn texts
    only: tuple[str, ...] = ()  # names of the models to train; all by default


def data(config: Config, place: Place) -> Splits:
    """Returns train, validation and test texts as rows of token ids."""
    check_trusted(config.corpus, place.prepared_only and config.corpus not in NAMED)
    corpus = ae.data.texts(config.corpus, data_dir=place.data_dir, manual_dir=place.manual_dir)
    train, validation, test = ae.data.tokens(
        corpus, config.coding, size=config.vocabulary, length=config.length
    )
    return (train.take(config.texts) if config.texts else train), validation, test


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns name -> `Job`, whose model is made when the vocabulary of the train split is known.

    Raises:
      UserError: if a number is out of range, or a name of `only` is unknown.
    """
    half = max(config.steps // 2, 1)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(config.learning_rate))
    changed: dict[str, dict[str, Any]] = {
        "pretraining": {"wrap": lambda learner: ae.restarted(learner, max(half // 2, 1))},
        "aggressive": {"tx": ae.aggressive(tx, every=4, until=half)},
    }
    objectives = {**remedies(config), WITHOUT: ae.elbo(), PLAIN: ae.reconstruction()}
    unknown = sorted(set(config.only) - set(objectives))
    if unknown:
        known = ", ".join(objectives)
        raise ae.UserError(f"--only has no model {unknown[0]!r}: give any of {known}")
    return {
        name: Job(None, objective, tx, fit=functools.partial(model, config, name))._replace(
            **changed.get(name, {})
        )
        for name, objective in objectives.items()
        if not config.only or name in config.only
    }


def remedies(config: Config) -> dict[str, Objective]:
    """Returns name -> objective, for the plain ELBO and each remedy."""
    half = max(config.steps // 2, 1)
    free = ae.losses.free_bits(config.nats / config.latents)
    late = optax.join_schedules([optax.constant_schedule(w) for w in (0.0, 1.0)], [half // 2])
    told = ae.watch(kl=ae.losses.kl)  # logs the KL if the loss has another term instead
    rising = optax.linear_schedule(0.0, 1.0, half)
    blind: Objective = {
        "rate": (rising, ae.losses.kl),
        "distortion": (1.0, ae.losses.word_dropout(0.4)),
    }
    return {
        "elbo": ae.elbo(),
        # Bowman et al. 2016, sections 3.1 and 3.2.
        "kl-annealing": ae.elbo(rising),
        "word-dropout": ae.merge(blind, ae.watch(seen=ae.losses.distortion)),
        # Fu et al. 2019.
        "cyclical": ae.elbo(cyclical(max(config.steps // 4, 1))),
        # Kingma et al. 2016, appendix C.8.
        "free-bits": ae.merge(ae.elbo(rate=free), told),
        # Li et al. 2019: first an autoencoder, whose decoder is then trained anew with free bits.
        "pretraining": ae.merge(ae.elbo(late, free), told),
        # He et al. 2019.
        "aggressive": ae.elbo(rising),
        # Zhu et al. 2020.
        "batch-norm": ae.elbo(),
        # Liu et al. 2019.
        "mean-distance": ae.merge(
            ae.elbo(), {"apart": (1.0, ae.losses.mean_distance(config.nats))}
        ),
        # Zhao et al. 2017.
        "bag-of-words": ae.merge(ae.elbo(rising), {"words": (1.0, ae.losses.bag_of_words())}),
        "high-rate": ae.elbo(optax.linear_schedule(0.0, HIGH_RATE, half)),
    }


def model(config: Config, name: str, train: Split) -> ae.Autoencoder:
    """Builds the autoencoder of a remedy, for texts with the coding of the train split."""
    coding, width, latents = texts.coder(train).coding, config.width, config.latents
    if config.net == "gru":
        encoder, net = ae.nets.TokenGRU(coding.size, width), ae.nets.CausalGRU(width)
    else:
        encoder = ae.nets.TokenTransformer(coding.size, width, config.layers)
        net = ae.nets.CausalTransformer(width, config.layers)
    prefix = 0 if name == WITHOUT else config.prefix
    likelihood = ae.likelihoods.Text(coding, net, config.length, prefix)
    bottlenecks = {
        PLAIN: ae.Point(latents),
        # The mean KL of BN-VAE is at least latents * gamma^2 / 2.
        "batch-norm": ae.NormalisedGaussian(latents, (2.0 * config.nats / latents) ** 0.5),
    }
    words = {"words": ae.nets.MLP((), shape=(coding.size,))}
    return ae.Autoencoder(
        encoder,
        bottlenecks.get(name, ae.Gaussian(latents)),
        ae.nets.MLP((), shape=likelihood.shape((config.length,))),
        None if name == PLAIN else ae.priors.Standard(),
        likelihood,
        parts=words if name == "bag-of-words" else {},
    )


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Measures each model on the first `tested` test texts."""
    train, _, test = splits
    test = test.take(config.tested)
    judge = texts.judge(splits)
    tokens = float((test.arrays["x"] > 0).sum(axis=1).mean())
    found: dict[str, Any] = {}
    for label, done in trained.items():
        say(f"{label}: figures")
        measured = functools.partial(_measured, config, done.job.model, train, test, judge)
        row = {
            **_likelihood(config, done, test, tokens),
            **evaluation.over_seeds(measured, done.variables, done.seeds),
        }
        found[label] = row
    one = np.ones(config.seeds)
    found["real"] = {"sample_perplexity": judge.real * one, "tokens": tokens * one}
    return found


def _likelihood(config: Config, done: Any, test: Split, tokens: float) -> dict[str, Any]:
    """Returns the bounds of a job with a prior, and the NLL for each token."""
    if done.job.model.prior is None:
        return {}
    found = variational.bounds(config.nll_draws, done, test)
    per_token = np.asarray(found["nll"]) / tokens
    return {**found, "nll_per_token": per_token, "perplexity": np.exp(per_token)}


def _measured(
    config: Config, model: Any, train: Split, test: Split, judge: Any, variables: Variables
) -> dict[str, float]:
    found = {}
    if model.prior is not None:
        key = jax.random.key(SAMPLE_SEED)
        found |= texts.of_samples(texts.samples(model, variables, key, config.samples), judge)
    if model.likelihood.prefix:
        found |= texts.of_reconstructions(model, variables, test)
        found |= texts.of_paths(texts.paths(model, variables, test), judge)
        found |= texts.of_labels(model, variables, train.take(5_000), test)
    return found


def page(config: Config, models: Models, splits: Splits) -> Page:
    """Builds the report page: samples, reconstructions and an interpolation of each model."""
    sections = texts.sections(models, splits[2].take(SHOWN), jax.random.key(SAMPLE_SEED))
    return Page(f"Texts of {config.corpus}", __doc__ or "", sections)


WORDNET = Config(
    corpus="wordnet",
    coding="words",
    vocabulary=8_000,
    length=20,
    net="transformer",
    width=128,
    latents=32,
    steps=10_000,
    batch=64,
    nats=8.0,
    learning_rate=1e-3,
    tested=1_000,
)
SMALL = dataclasses.replace(
    WORDNET,
    net="gru",
    vocabulary=2_000,
    length=16,
    width=64,
    latents=16,
    steps=1_000,
    batch=32,
    learning_rate=3e-3,
    tested=200,
    samples=100,
)

EXPERIMENT = Experiment(
    name="text-vae",
    config=Config,
    data=data,
    build=build,
    figures=figures,
    page=page,
    presets={"wordnet": WORDNET, "wordnet-small": SMALL},
)
