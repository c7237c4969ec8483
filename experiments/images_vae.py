"""A variational autoencoder of images, MLP or convolutional, beside a plain autoencoder.

    python -m experiments images-vae --dataset mnist
    python -m experiments images-vae --dataset fashion_mnist --net conv
    python -m experiments images-vae --dataset mnist --bound iwae --draws 5

Any image data set by its tensorflow-datasets name, or a folder of pictures given as a path. The
first command takes about 6 minutes on 2 shared CPU cores; expected on MNIST's test split: ELBO
-96.5, NLL (100 draws) 92.3 nats, 32 active units.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import optax

import aejax as ae
from experiments.shared import variational
from experiments.shared.experiment import Experiment
from experiments.shared.images import image_data
from experiments.shared.training import Numbers, Part, check


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The experiment's numbers."""

    steps: int = 20_000
    dataset: str = "mnist"  # a name, or the path of a folder of pictures
    binarise: Literal["dynamic", "static", "none"] = "dynamic"  # none: figures are named bce
    net: variational.Net = "mlp"
    width: int = 512  # units of the hidden layers
    latents: int = 32  # dimensions of the latent space
    draws: int = 1  # codes drawn for each example and step
    bound: Literal["elbo", "iwae"] = "elbo"
    learning_rate: float = 1e-3  # of Adam; the weights are averaged instead of it falling
    beta: float = 1.0  # weight of the rate; only with 1 is the loss a bound
    warmup: int = 2_000  # steps in which beta grows from 0
    nll_draws: int = 100  # of the importance-weighted NLL; 5000 in published tables


def build(config: Config, event: tuple[int, ...]) -> dict[str, Part]:
    """The variational autoencoder, and the plain one with the same nets."""
    check(config, "width", "latents", "draws", "nll_draws")
    beta = optax.linear_schedule(0.0, config.beta, max(config.warmup, 1))
    size = (config.net, event, config.width, config.latents)
    # A bound other than the ELBO needs the rate at its draws.
    rate = ae.losses.kl if config.bound == "elbo" else ae.losses.rate()
    bound = {"elbo": ae.bounds.mean, "iwae": ae.bounds.iwae}[config.bound]
    parts = variational.pair(size, beta, optax.adam(config.learning_rate), rate)
    return {**parts, "vae": parts["vae"]._replace(draws=config.draws, bound=bound)}


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
