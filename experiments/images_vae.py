"""A variational autoencoder of images, MLP or convolutional, and a plain one for comparison.

    python -m experiments images-vae --dataset mnist
    python -m experiments images-vae --dataset fashion_mnist --net conv
    python -m experiments images-vae --dataset mnist --bound iwae --draws 5

The data is any image data set, given by its name in tensorflow-datasets, or a folder of images,
given by its path. The first command takes about 6 minutes on 2 shared CPU cores. Expect on MNIST's
test split an ELBO of -96.5 nats, an NLL (100 draws) of 92.3 nats, and 32 active units.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import optax

import aejax as ae
from experiments.shared import variational
from experiments.shared.experiment import Experiment
from experiments.shared.images import image_data
from experiments.shared.numbers import Count
from experiments.shared.training import Job, Numbers


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    steps: Count = 20_000  # optimiser steps
    dataset: str = "mnist"  # name of a data set, or path of a folder of images
    # draw binary pixels at every step, once, or never; the NLL of grey images is named bce
    binarise: Literal["dynamic", "static", "none"] = "dynamic"
    net: variational.Net = "mlp"  # type of encoder and decoder
    width: Count = 512  # units of each hidden layer; conv starts with WIDTH / 8 channels
    latents: Count = 32  # number of latents
    draws: Count = 1  # number of codes drawn for each example at each step
    bound: Literal["elbo", "iwae"] = "elbo"  # the bound that training maximises
    learning_rate: float = 1e-3  # constant learning rate of Adam; weights are averaged
    beta: float = 1.0  # weight of the rate; the loss is a bound only if it is 1
    warmup: int = 2_000  # steps over which beta grows from 0
    nll_draws: Count = 100  # samples of the importance-weighted NLL; published tables use 5000


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns the `Job`s (a model and its training) of the VAE and of a plain autoencoder."""
    beta = optax.linear_schedule(0.0, config.beta, max(config.warmup, 1))
    size = (config.net, event, config.width, config.latents)
    # IWAE needs the rate at each draw, but the KL in closed form is an expectation over draws.
    rate = ae.losses.kl if config.bound == "elbo" else ae.losses.rate()
    bound = {"elbo": ae.bounds.mean, "iwae": ae.bounds.iwae}[config.bound]
    jobs = variational.pair(size, beta, optax.adam(config.learning_rate), rate)
    return {**jobs, "vae": jobs["vae"]._replace(draws=config.draws, bound=bound)}


EXPERIMENT = Experiment(
    name="images-vae",
    config=Config,
    data=image_data(binarise=None),
    build=build,
    figures=variational.figures,
    page=lambda config, models, splits: variational.page(
        f"A variational autoencoder of {variational.named(splits)}", __doc__ or "", models, splits
    ),
)
