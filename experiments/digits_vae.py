"""Five variational autoencoders of handwritten digits, beside plain autoencoders.

    python -m experiments digits-vae

scikit-learn's 1,797 images of 8x8 pixels, re-binarised at every step; MLP 64-256-16-256-64. Needs
no network. On 2 CPU cores about 1 minute, and 3 where they are shared; expected on the test split,
over 5 seeds: ELBO -23.01 +- 0.07, NLL (100 draws) 22.61 +- 0.02 nats, 16 active units.
"""

from __future__ import annotations

import dataclasses

import optax

from experiments.shared import variational
from experiments.shared.experiment import Experiment
from experiments.shared.images import image_data
from experiments.shared.training import Numbers, Part, check


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The experiment's numbers."""

    seeds: int = 5
    batch: int = 128
    width: int = 256  # units of the hidden layers
    latents: int = 16  # dimensions of the latent space
    learning_rate: float = 1e-3  # of Adam; the weights are averaged instead of it falling
    beta: float = 1.0  # weight of the rate; only with 1 is the loss a bound
    warmup: int = 1_000  # steps in which beta grows from 0
    nll_draws: int = 100  # of the importance-weighted NLL; 5000 in published tables


def build(config: Config, event: tuple[int, ...]) -> dict[str, Part]:
    """The variational autoencoder, and the plain one with the same nets."""
    check(config, "width", "latents", "nll_draws")
    beta = optax.linear_schedule(0.0, config.beta, max(config.warmup, 1))
    size: variational.Size = ("mlp", event, config.width, config.latents)
    return variational.pair(size, beta, optax.adam(config.learning_rate))


EXPERIMENT = Experiment(
    name="digits-vae",
    config=Config,
    data=image_data("digits"),
    build=build,
    figures=variational.figures,
    page=lambda config, models, splits: variational.page(
        "Handwritten digits", __doc__ or "", models, splits
    ),
)
