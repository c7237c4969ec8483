"""Posterior collapse under a PixelCNN decoder, and what each remedy does about it.

    python -m experiments collapse
    python -m experiments collapse --dataset mnist --manual-dir DIR

A decoder that sees the pixels before each one can explain an image without its latents, and under
the plain ELBO its code says little. Each remedy takes the same nets and steps; the same decoder
without latents stands beside, and is what a code has to beat. `nll` is importance-weighted, so that
a remedy which only buys KL shows: more KL and no less NLL.

1.3 minutes of training on one CPU core for the first command. Expect one nat of code under the
plain ELBO, 2.6 to 4.7 under annealing, cycles, free bits and pretraining, and every code better
than none.
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
from experiments.shared.experiment import Experiment, Measured, Members, Models, Page, Splits
from experiments.shared.images import image_data
from experiments.shared.training import Numbers, Part, check

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
    """The experiment's numbers."""

    seeds: int = 2
    steps: int = 1_000
    batch: int = 32
    chunk: int = 250
    dataset: str = "digits"  # a name, or the path of a folder of pictures
    binarise: Literal["dynamic", "static"] = "dynamic"
    width: int = 64  # units of the hidden layers of encoder and decoder
    latents: int = 8  # dimensions of the latent space
    channels: int = 8  # of each layer of the PixelCNN
    layers: int = 2  # of the PixelCNN
    kernel: int = 5  # of each layer, odd
    conditioning: int = 8  # channels of the map by which the PixelCNN sees the latents
    nats: float = 4.0  # of KL: that free bits leave free, and that capacity draws the KL to
    learning_rate: float = 2e-3  # of Adam
    nll_draws: int = 50  # of the importance-weighted NLL


def build(config: Config, event: tuple[int, ...]) -> dict[str, Part]:
    """A part for each remedy, the plain ELBO first and the decoder without latents last."""
    check(config, "width", "latents", "channels", "layers", "conditioning", "nll_draws")
    tx = optax.adam(config.learning_rate)

    def pixels(conditioning: int, layers: int, kernel: int) -> Any:
        return ae.likelihoods.PixelCNN(
            ae.likelihoods.Bernoulli(), event[-1], conditioning, config.channels, layers, kernel
        )

    size = (config.conditioning, config.layers, config.kernel)
    model, near, alone = (
        _model(config, event, pixels(*each)) for each in (size, (size[0], 1, 3), (0, *size[1:]))
    )
    parts = {name: Part(model, terms, tx) for name, terms in remedies(config).items()}
    # A decoder that sees the pixels next to each alone (Chen et al. 2017, section 3.2).
    parts["near-pixels"] = Part(near, ae.elbo(), tx)
    parts[WITHOUT] = Part(alone, ae.elbo(), tx)
    return parts


def remedies(config: Config) -> dict[str, Objective]:
    """name -> objective, all under the same decoder."""
    half = max(config.steps // 2, 1)
    free = ae.losses.free_bits(config.nats / config.latents)
    late = optax.join_schedules([optax.constant_schedule(w) for w in (0.0, 1.0)], [half])
    explained: Objective = {"distortion": (1.0, ae.losses.distortion)}
    told = ae.watch(kl=ae.losses.kl)  # where the cost counts something else
    return {
        "elbo": ae.elbo(),
        # Bowman et al. 2016, section 3.1.
        "kl-annealing": ae.elbo(optax.linear_schedule(0.0, 1.0, half)),
        # Fu et al. 2019.
        "cyclical": ae.elbo(cyclical(max(config.steps // 4, 1))),
        # Kingma et al. 2016, appendix C.8.
        "free-bits": ae.merge(ae.elbo(rate=free), told),
        # An autoencoder first, then free bits (Li et al. 2019, without their reset).
        "pretraining": ae.merge(ae.elbo(late, free), told),
        # Burgess et al. 2018: the KL is drawn to a number of nats.
        "capacity": ae.merge(
            {"capacity": (CAPACITY_WEIGHT, ae.losses.capacity(config.nats))}, explained, told
        ),
        # Zhao et al. 2019 with alpha = 1: the aggregate posterior alone is drawn to the prior.
        "infovae": ae.merge({"mmd": (MMD_WEIGHT, ae.losses.mmd())}, explained, told),
    }


def _model(config: Config, event: tuple[int, ...], likelihood: Any) -> ae.Autoencoder:
    """The autoencoder with this likelihood."""
    encoder, decoder = variational.nets("mlp", likelihood.shape(event), config.width)
    prior = ae.priors.Standard()
    return ae.Autoencoder(encoder, ae.Gaussian(config.latents), decoder, prior, likelihood)


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """KL, mutual information, active units and NLL of each part and seed."""
    return {
        label: variational.bounds(config.nll_draws, part, splits[2])
        for label, part in trained.items()
    }


def page(config: Config, models: Models, splits: Splits) -> Page:
    """What is decoded from the codes of test examples: where they tell nothing, anything is."""
    return Page(
        "Posterior collapse and its remedies",
        __doc__ or "",
        [reconstructions_section(models, splits[2])],
    )


def measured(config: Config, found: Measured) -> list[Any]:
    """What each remedy's code carries, and what it is good for, beside no latents."""
    rows = groups(found.result)
    level = {"nll": rows.pop(WITHOUT)["nll"].mean}
    values = {
        label: {name: row[name].values for name in NAMES if name in row}
        for label, row in rows.items()
    }
    picture = Picture(
        "remedies",
        "Every point is one seed, a thick line the median over seeds. The dashed line is the NLL "
        "of the same decoder without latents: a code is worth having where it lies below.",
        partial(plots.distributions, values=values, names=NAMES, level=level, level_name=WITHOUT),
    )
    text = (
        f"Each remedy after {config.steps:,} steps. KL says what the code costs, mutual "
        "information what it tells of x, and the NLL whether that was worth it."
    )
    return [Section("Remedies", text, [picture])]


EXPERIMENT = Experiment(
    name="collapse",
    config=Config,
    data=image_data(binarise=None),
    build=build,
    figures=figures,
    page=page,
    measured=measured,
)
