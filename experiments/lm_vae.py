"""A variational autoencoder of texts whose decoder is a frozen language model.

    python -m experiments fetch-lm models
    python -m experiments lm-vae --manual-dir /usr/share/wordnet

The encoder reads the hidden states of a layer of the language model, and the decoder gives it a
soft prefix, and keys and values of every layer. Training begins without the rate, as that of an
autoencoder; then the rate grows, with free bits. The weights of the language model are constants.

`bleu` and `token_accuracy` are of held-out reconstructions, and `..._of_another` those with another
text, as if the code were that of another one. `path_perplexity` is that of the texts between two
codes, under the language model alone, as is the `lm_perplexity` of samples and of `real` texts.

Compiling and the first 10 steps of 8 texts took 36 s of processor time on two shared CPU cores. No
run has been finished yet.
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
from aejax.data.text import NAMED, Texts
from aejax.data.text.coding import encode
from aejax.types import Array, Variables
from experiments.shared import texts, variational
from experiments.shared.experiment import Experiment, Members, Models, Page, Splits
from experiments.shared.numbers import Count
from experiments.shared.place import Place, say
from experiments.shared.training import Job, Numbers
from experiments.shared.variational import SAMPLE_SEED

SHOWN = 10  # the number of samples and reconstructions on the page
NAME = "latents"


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    steps: Count = 400  # optimiser steps
    batch: Count = 8  # texts in a batch
    chunk: Count = 20  # steps in one compiled call
    model: str = "models/SmolLM2-135M-Instruct.Q4_1.gguf"  # a GGUF file or a Hugging Face folder
    corpus: str = "wordnet"  # topics, wordnet, brown, bible, a folder of texts, or JSON lines
    texts: Count = 4_000  # number of texts to choose at random from the train split
    length: Count = 16  # largest number of tokens of a text, with its end; longer: left out
    layer: int = 9  # the layer whose hidden states the encoder reads, from 0
    width: Count = 64  # features of a head of the encoder, and of a vector of the decoder
    latents: Count = 32  # number of latents
    prefix: Count = 4  # vectors that the decoder gives to the language model
    nats: float = 16.0  # KL in nats that free bits do not penalise
    learning_rate: float = 2e-3  # learning rate of Adam, which falls to zero
    nll_draws: Count = 5  # samples of the importance-weighted NLL
    tested: Count = 50  # number of test texts to evaluate
    samples: Count = 50  # number of drawn texts


def data(config: Config, place: Place) -> Splits:
    """Returns train, validation and test texts as rows of the language model's tokens."""
    check_trusted(config.corpus, place.prepared_only and config.corpus not in NAMED)
    check_trusted(config.model, place.prepared_only)
    coding: Any = lm.Stored.of(config.model).vocabulary()
    found = ae.data.texts(config.corpus, data_dir=place.data_dir, manual_dir=place.manual_dir)
    counts = (config.texts, 2 * config.tested, 4 * config.tested)
    first, second, third = (texts.some(part, n) for part, n in zip(found[:3], counts, strict=True))
    parts = Texts(first, second, third, None)
    train, validation, test = ae.data.tokens(parts, coding, length=config.length)
    return train, validation.take(config.tested), test.take(config.tested)


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns name -> `Job`, whose model is made when the tokens of the train split are known."""
    rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    part = max(config.steps // 4, 1)
    late = optax.linear_schedule(0.0, 1.0, part, 2 * part)
    free = ae.elbo(late, ae.losses.free_bits(config.nats / config.latents))
    objective = ae.merge(free, ae.watch(kl=ae.losses.kl))
    return {NAME: Job(None, objective, tx, fit=functools.partial(model, config))}


def model(config: Config, train: Split) -> ae.Autoencoder:
    """Builds the autoencoder around the language model whose tokens the train split has."""
    coding = texts.coder(train).coding
    likelihood = lm.Spoken(coding, None, config.length, config.prefix, config.width)
    return ae.Autoencoder(
        lm.HiddenStates(coding.stored, config.layer, config.width),
        ae.Gaussian(config.latents),
        ae.nets.MLP((), shape=likelihood.shape((config.length,))),
        ae.priors.Standard(),
        likelihood,
    )


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Measures the model on test texts, and the language model alone on the same texts."""
    test = splits[2]
    done = trained[NAME]
    tokens = float((test.arrays["x"] > 0).sum(axis=1).mean())
    say(f"{NAME}: figures")
    bounds = variational.bounds(config.nll_draws, done, test)
    measured = functools.partial(_measured, config, done.job.model, splits)
    own = {**bounds, **evaluation.over_seeds(measured, done.variables, done.seeds)}
    own["nll_per_token"] = np.asarray(bounds["nll"]) / tokens
    real = perplexity(done.job.model, texts.contents(test))
    one = np.ones(config.seeds)
    return {NAME: own, "real": {"lm_perplexity": real * one, "tokens": tokens * one}}


def _measured(config: Config, model: Any, splits: Splits, variables: Variables) -> dict[str, float]:
    test, judge = splits[2], texts.judge(splits)
    drawn = texts.samples(model, variables, jax.random.key(SAMPLE_SEED), config.samples)
    paths = texts.paths(model, variables, test)
    inner = [text for path in paths for text in path[1:-1]]
    return {
        **texts.of_samples(drawn, judge),
        "lm_perplexity": perplexity(model, drawn),
        **texts.of_reconstructions(model, variables, test),
        **texts.of_paths(paths, judge),
        "path_perplexity": perplexity(model, inner),
    }


def perplexity(model: Any, found: list[str]) -> float:
    """Computes the perplexity of texts under the language model alone; empty ones are left out."""
    alone = model.likelihood.clone(prefix=0)
    coding = alone.text_coding()
    real = [text for text in found if coding.ids(text)]
    if not real:
        return float("nan")
    rows = encode(coding, real, alone.length, "cut")
    total = sum(
        float(_log_prob(alone, rows[i : i + texts.SIZE]).sum())
        for i in range(0, len(rows), texts.SIZE)
    )
    return float(np.exp(-total / (rows > 0).sum()))


@functools.partial(jax.jit, static_argnums=0)
def _log_prob(alone: Any, rows: Array) -> Array:
    prediction = np.zeros((rows.shape[0], 1, 1), np.float32)
    return alone.apply({}, prediction, rows, method="log_prob")


def page(config: Config, models: Models, splits: Splits) -> Page:
    """Builds the report page: samples, reconstructions and a path."""
    sections = texts.sections(models, splits[2].take(SHOWN), jax.random.key(SAMPLE_SEED))
    return Page(f"Texts of {config.corpus} from a language model", __doc__ or "", sections)


EXPERIMENT = Experiment(
    name="lm-vae", config=Config, data=data, build=build, figures=figures, page=page
)
