"""Posterior collapse with a PixelCNN decoder, and how well each remedy prevents it.

    python -m experiments collapse
    python -m experiments collapse --dataset mnist --manual-dir DIR

An autoregressive decoder predicts each pixel from the pixels before it, so it can model images
without latents, and with the plain ELBO the code carries little information. All remedies use the
same nets and the same number of steps. The baseline is the same decoder without latents: a code is
useful only if the NLL is lower with it. `nll` is importance-weighted, so that it shows whether a
remedy raises only the KL and not the likelihood.

The first command takes 1.3 minutes of training on one CPU core. Expect a KL of one nat with the
plain ELBO, and of 2.6 to 4.7 nats with KL annealing, cyclical annealing, free bits and pretraining.
Every remedy should have a lower NLL than the decoder without latents.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import optax

import aejax as ae
from aejax.objective import cyclical
from aejax.report import Picture, Section, reconstructions_section
from aejax.report.drawing import plots
from aejax.report.results import groups
from aejax.types import Objective
from experiments.shared import variational
from experiments.shared.experiment import Experiment, Finished, Members, Models, Page, Splits
from experiments.shared.images import image_data
from experiments.shared.numbers import Count
from experiments.shared.training import Job, Numbers

CAPACITY_WEIGHT = 10.0
MMD_WEIGHT = 100.0
WITHOUT = "no-latents"
NAMES = {
    "rate": "KL, nats",
    "mutual_information": "mutual information",
    "active_units": "active units",
    "nll": "NLL, nats",
}


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    seeds: Count = 2  # number of models with different seeds, trained together in one program
    steps: Count = 1_000  # optimiser steps
    batch: Count = 32  # examples in a batch
    chunk: Count = 250  # steps in one compiled call
    dataset: str = "digits"  # name of a data set, or path of a folder of images
    binarise: Literal["dynamic", "static"] = "dynamic"  # draw binary pixels at every step, or once
    width: Count = 64  # units of the hidden layers of encoder and decoder
    latents: Count = 8  # number of latents
    channels: Count = 8  # channels of each layer of the PixelCNN
    layers: Count = 2  # layers of the PixelCNN
    kernel: int = 5  # width of the PixelCNN's kernels in pixels, an odd number
    conditioning: Count = (
        8  # channels of the feature map that the PixelCNN receives from the latents
    )
    nats: float = 4.0  # KL in nats that free-bits does not penalise, and the target of capacity
    learning_rate: float = 2e-3  # learning rate of Adam
    nll_draws: Count = 50  # samples of the importance-weighted NLL


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns name -> `Job` (a model and its training) for each remedy.

    The first job is the plain ELBO, and the last one the decoder without latents.
    """
    tx = optax.adam(config.learning_rate)

    def pixels(conditioning: int, layers: int, kernel: int) -> Any:
        return ae.likelihoods.PixelCNN(
            ae.likelihoods.Bernoulli(), event[-1], conditioning, config.channels, layers, kernel
        )

    size = (config.conditioning, config.layers, config.kernel)
    model, near, alone = (
        _model(config, event, pixels(*each)) for each in (size, (size[0], 1, 3), (0, *size[1:]))
    )
    jobs = {name: Job(model, terms, tx) for name, terms in remedies(config).items()}
    # This decoder predicts each pixel from neighbouring pixels only (Chen et al. 2017, section
    # 3.2).
    jobs["near-pixels"] = Job(near, ae.elbo(), tx)
    jobs[WITHOUT] = Job(alone, ae.elbo(), tx)
    return jobs


def remedies(config: Config) -> dict[str, Objective]:
    """Returns name -> objective, for the plain ELBO and the remedies with the same decoder."""
    half = max(config.steps // 2, 1)
    free = ae.losses.free_bits(config.nats / config.latents)
    late = optax.join_schedules([optax.constant_schedule(w) for w in (0.0, 1.0)], [half])
    explained: Objective = {"distortion": (1.0, ae.losses.distortion)}
    told = ae.watch(kl=ae.losses.kl)  # logs the KL if the loss has another term instead
    return {
        "elbo": ae.elbo(),
        # Bowman et al. 2016, section 3.1.
        "kl-annealing": ae.elbo(optax.linear_schedule(0.0, 1.0, half)),
        # Fu et al. 2019.
        "cyclical": ae.elbo(cyclical(max(config.steps // 4, 1))),
        # Kingma et al. 2016, appendix C.8.
        "free-bits": ae.merge(ae.elbo(rate=free), told),
        # Li et al. 2019, without resetting the decoder: first an autoencoder, then free bits.
        "pretraining": ae.merge(ae.elbo(late, free), told),
        # Burgess et al. 2018: the distance of the KL from a number of nats is penalised.
        "capacity": ae.merge(
            {"capacity": (CAPACITY_WEIGHT, ae.losses.capacity(config.nats))}, explained, told
        ),
        # Zhao et al. 2019 with alpha = 1: only the aggregate posterior has to match the prior.
        "infovae": ae.merge({"mmd": (MMD_WEIGHT, ae.losses.mmd())}, explained, told),
    }


def _model(config: Config, event: tuple[int, ...], likelihood: Any) -> ae.Autoencoder:
    """Builds the experiment's autoencoder with the given likelihood."""
    encoder, decoder = variational.nets("mlp", likelihood.shape(event), config.width)
    prior = ae.priors.Standard()
    return ae.Autoencoder(encoder, ae.Gaussian(config.latents), decoder, prior, likelihood)


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Computes the KL, mutual information, active units and NLL of each job and seed."""
    return {
        label: variational.bounds(config.nll_draws, done, splits[2])
        for label, done in trained.items()
    }


def page(config: Config, models: Models, splits: Splits) -> Page:
    """Builds the report page, which shows each model's reconstructions of test images.

    A model whose code has collapsed reconstructs images that are unrelated to its inputs.
    """
    return Page(
        "Posterior collapse and its remedies",
        __doc__ or "",
        [reconstructions_section(models, splits[2])],
    )


def findings(config: Config, finished: Finished) -> list[Any]:
    """Builds the section that plots the KL, mutual information, active units and NLL of remedies.

    A line marks the NLL of the decoder without latents.
    """
    rows = groups(finished.result)
    level = {"nll": rows.pop(WITHOUT)["nll"].mean}
    values = {
        label: {name: row[name].values for name in NAMES if name in row}
        for label, row in rows.items()
    }
    picture = Picture(
        "remedies",
        "Every point is one seed, and a thick line is the median over seeds. The dashed line is "
        "the NLL of the same decoder without latents: a code is useful if its NLL lies below.",
        partial(plots.distributions, values=values, names=NAMES, level=level, level_name=WITHOUT),
    )
    text = (
        f"The results of each remedy after {config.steps:,} steps. The KL is the cost of the code, "
        "the mutual information is its information about x, and a lower NLL shows that it helps."
    )
    return [Section("Remedies", text, [picture])]


EXPERIMENT = Experiment(
    name="collapse",
    config=Config,
    data=image_data(binarise=None),
    build=build,
    figures=figures,
    page=page,
    findings=findings,
)
