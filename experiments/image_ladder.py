"""A ladder VAE of configurable depth: residual nets, one trunk for prior, posterior and decoder.

    python -m experiments image-ladder
    python -m experiments image-ladder --small 4 --large 8 --channels 64 --blocks 4 --remat

Soenderby et al. 2016 in the residual form of Kingma et al. 2016, on dynamically binarised MNIST,
with free bits in each level. The published figures of such ladders, NLL (1,000 draws) 79.24, 78.52
and 78.30 at 3, 6 and 12 levels, are on static MNIST and of far longer runs: those of `image-priors`
stand nearer. The first command takes 46 minutes on one CPU core that had other work as well, 30 of
them training: 10 epochs, NLL (100 draws) 88.90, ELBO -93.11, 352 active units.
"""

from __future__ import annotations

import dataclasses

import optax

import aejax as ae
from experiments.shared import variational
from experiments.shared.experiment import Experiment
from experiments.shared.images import image_data
from experiments.shared.training import Numbers, Part, check


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The experiment's numbers."""

    steps: int = 5_000  # 10 epochs
    chunk: int = 100
    dataset: str = "mnist"  # any whose pictures can be halved twice
    small: int = 1  # stochastic levels at a quarter of the image's size
    large: int = 2  # at half of it
    channels: int = 24  # of features and trunk
    latents: int = 2  # channels of each level's latent
    blocks: int = 1  # residual blocks between levels, upwards and downwards each
    remat: bool = False  # computes the blocks anew in the backward pass, for depth
    free_nats: float = 0.5  # of each level's KL
    learning_rate: float = 2e-3  # of Adam; the weights are averaged instead of it falling
    nll_draws: int = 100  # of the importance-weighted NLL; 1000 in the published tables


def build(config: Config, event: tuple[int, ...]) -> dict[str, Part]:
    """The ladder."""
    check(config, "small", "large", "channels", "latents", "blocks", "nll_draws")
    if len(event) != 3:
        raise ae.UserError(f"image-ladder is of images, not of {event}: choose another --dataset")
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
    return {"vae": Part(model, objective, optax.adam(config.learning_rate), average=0.999)}


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
