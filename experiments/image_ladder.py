"""A ladder VAE with any number of levels, made of residual nets.

    python -m experiments image-ladder
    python -m experiments image-ladder --small 4 --large 8 --channels 64 --blocks 4 --remat

This is the ladder VAE of Soenderby et al. 2016 with the residual nets of Kingma et al. 2016: prior,
posterior and decoder share a deterministic net, the trunk. It is trained on dynamically binarised
MNIST, with free bits in each level. Published NLLs (1,000 draws) of such ladders, 79.24, 78.52 and
78.30 nats with 3, 6 and 12 levels, are from far longer runs on statically binarised MNIST; the
published results of `image-priors` are easier to compare with. The first command takes 46 minutes
on one shared CPU core, 30 of them training. Expect after 10 epochs an NLL (100 draws) of 88.90
nats, an ELBO of -93.11 nats and 352 active units.
"""

from __future__ import annotations

import dataclasses

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

    steps: Count = 5_000  # optimiser steps; 5000 are 10 epochs
    chunk: Count = 100  # steps in one compiled call
    dataset: str = "mnist"  # name of an image data set with height and width divisible by 4
    small: Count = 1  # stochastic levels at a quarter of the image's height and width
    large: Count = 2  # stochastic levels at half of the image's height and width
    channels: Count = 24  # channels of features and trunk
    latents: Count = 2  # channels of each level's latent
    blocks: Count = 1  # residual blocks between levels, in each direction
    remat: bool = False  # recompute blocks in the backward pass, which saves memory
    free_nats: float = 0.5  # nats of each level's KL that are not penalised
    learning_rate: float = 2e-3  # constant learning rate of Adam; weights are averaged
    nll_draws: Count = 100  # samples of the importance-weighted NLL; published tables use 1000


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns {"vae": the `Job`, that is the ladder VAE and its training}."""
    if len(event) != 3:
        raise ae.UserError(
            "image-ladder needs images of (height, width, channels), but the shape of an example "
            f"is {event}: choose another --dataset"
        )
    levels = (config.small, config.large)
    size = (config.channels, config.latents, config.blocks, config.remat)
    nets = ae.nets.ladder(event, levels, *size)
    model = ae.Autoencoder(
        nets.encoder,
        ae.Levels(nets.latents, nets.heads),
        nets.output,
        ae.priors.Ladder(nets.trunk),
        ae.likelihoods.Bernoulli(),
    )
    objective: ae.Objective = {
        "rate": (1.0, ae.losses.free_bits(config.free_nats, nets.latents)),
        "distortion": (1.0, ae.losses.distortion),
    }
    objective = ae.merge(objective, ae.watch(kl=ae.losses.kl, error=ae.losses.squared_error))
    return {"vae": Job(model, objective, optax.adam(config.learning_rate), average=0.999)}


EXPERIMENT = Experiment(
    name="image-ladder",
    config=Config,
    data=image_data(),
    build=build,
    figures=variational.figures_and_epochs,
    page=lambda config, models, splits: variational.page(
        f"A ladder of {config.small + config.large} levels", __doc__ or "", models, splits
    ),
)
