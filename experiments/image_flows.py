"""Posteriors trained for equally many steps: diagonal Gaussian, planar, IAF and Sylvester flows.

    python -m experiments image-flows --manual-dir DIR
    python -m experiments image-flows --preset paper       # for accelerators

The data is statically binarised MNIST. All posteriors have the same encoder, decoder, steps,
batches and seeds, and all flows have the same number of flow steps. Published tables (van den Berg
et al. 2018) are from gated convolutional nets with 64 latents, trained for hundreds of epochs, so
results of a few minutes of training are not comparable with them.

The first command takes 5 minutes of CPU time. Expect a mean NLL of 107.5 nats for the diagonal
posterior, 107.0 for planar flows, 106.3 for IAF and 106.1 for Sylvester flows. With three seeds the
difference between the last two is not significant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import optax

import aejax as ae
from aejax.report import Picture, Section, reconstructions_section
from aejax.report.drawing import plots
from aejax.report.results import groups
from experiments.shared import variational
from experiments.shared.experiment import Experiment, Finished, Members, Models, Page, Splits
from experiments.shared.images import image_data
from experiments.shared.numbers import Count
from experiments.shared.training import Job, Numbers

NAMES = {
    "nll": "NLL, nats",
    "elbo": "ELBO, nats",
    "rate": "rate, nats",
    "distortion": "distortion, nats",
    "gap": "−ELBO − NLL, nats",
}


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    seeds: Count = 3  # number of models with different seeds, trained together in one program
    steps: Count = 4_000  # optimiser steps
    dataset: str = "mnist"  # name of a data set, or path of a folder of images
    width: Count = 200  # units of the hidden layer of the encoder, and of the decoder
    latents: Count = 16  # number of latents
    flows: Count = 4  # number of steps of each flow
    made: Count = 64  # units of the hidden layer of each step of IAF
    columns: Count = 8  # rank of each step of the Sylvester flow
    learning_rate: float = 1e-3  # learning rate of Adam; falls to 0 along a cosine
    warmup: int = 1_000  # steps over which the weight of the rate grows from 0
    tested: Count = 1_000  # number of test examples to evaluate, starting with the first
    nll_draws: Count = 100  # samples of the importance-weighted NLL; published tables use 5000


PAPER = Config(
    steps=400_000,
    width=300,
    latents=64,
    made=320,
    columns=32,
    learning_rate=5e-4,
    warmup=50_000,
    tested=10_000,
    nll_draws=5_000,
)


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns name -> `Job` (a model and its training) for each posterior."""
    size, flows = config.latents, config.flows
    posteriors = {
        "diagonal": ae.Gaussian(size),
        "planar": ae.Planar(size, flows),
        "iaf": ae.InverseAutoregressive(size, flows, (config.made,)),
        "sylvester": ae.Sylvester(size, config.columns, flows),
    }
    tx = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
    beta = optax.linear_schedule(0.0, 1.0, max(config.warmup, 1))
    # The rate of all posteriors is estimated from draws, because only the diagonal one has a KL in
    # closed form.
    objective = ae.elbo(beta, ae.losses.rate())
    encoder, decoder = variational.nets("mlp", event, config.width)
    prior, likelihood = ae.priors.Standard(), ae.likelihoods.Bernoulli()
    models = {
        label: ae.Autoencoder(encoder, posterior, decoder, prior, likelihood)
        for label, posterior in posteriors.items()
    }
    return {label: Job(model, objective, tx, average=0.999) for label, model in models.items()}


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Computes the test results of each posterior, and `gap`, which is -ELBO - NLL."""
    test = splits[2].take(config.tested)
    result = {}
    for label, done in trained.items():
        found = variational.bounds(config.nll_draws, done, test)
        result[label] = {**found, "gap": -found["elbo"] - found["nll"]}
    return result


def page(config: Config, models: Models, splits: Splits) -> Page:
    """Builds the report page, which shows each model's reconstructions of test images."""
    sections = [reconstructions_section(models, splits[2])]
    return Page("Posteriors made by flows", __doc__ or "", sections)


def findings(config: Config, finished: Finished) -> list[Any]:
    """Builds the section that plots the NLL, ELBO, rate, distortion and gap of each posterior.

    The gap is -ELBO - NLL.
    """
    values = {
        label: {name: row[name].values for name in NAMES if name in row}
        for label, row in groups(finished.result).items()
    }
    picture = Picture(
        "flows",
        "Every point is one seed, and a thick line is the median over seeds. Lower is better, "
        "except for the ELBO. The last panel is the gap between the ELBO and the importance-"
        "weighted log-likelihood, which a richer posterior should reduce.",
        partial(plots.distributions, values=values, names=NAMES),
    )
    return [
        Section("Flows", f"The results of each posterior after {config.steps:,} steps.", [picture])
    ]


EXPERIMENT = Experiment(
    name="image-flows",
    config=Config,
    data=image_data(binarise="static"),
    build=build,
    figures=figures,
    page=page,
    findings=findings,
    presets={"paper": PAPER},
)
