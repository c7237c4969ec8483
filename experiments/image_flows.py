"""What a richer posterior is worth: diagonal, planar, IAF and orthogonal Sylvester, one budget.

    python -m experiments image-flows --manual-dir DIR
    python -m experiments image-flows --preset paper       # for accelerators

Statically binarised MNIST. Encoder, decoder, steps, batches and seeds are the same; each flow has
as many steps. Published tables (van den Berg et al. 2018) train gated convolutional nets with 64
latents for hundreds of epochs: a budget of minutes is not comparable with them.

The first command took 5 minutes of CPU. Expect in the mean diagonal 107.5 nats, planar 107.0, IAF
106.3 and Sylvester 106.1, of which three seeds do not tell the last two apart.
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
from experiments.shared.experiment import Experiment, Measured, Members, Models, Page, Splits
from experiments.shared.images import image_data
from experiments.shared.training import Numbers, Part, check

NAMES = {
    "nll": "NLL, nats",
    "elbo": "ELBO, nats",
    "rate": "rate, nats",
    "distortion": "distortion, nats",
    "gap": "−ELBO − NLL, nats",
}


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The experiment's numbers."""

    seeds: int = 3
    steps: int = 4_000
    dataset: str = "mnist"
    width: int = 200  # units of the hidden layer of encoder and decoder
    latents: int = 16  # dimensions of the latent space
    flows: int = 4  # steps of each flow
    made: int = 64  # units of the hidden layer of each step of IAF
    columns: int = 8  # directions of each step of Sylvester
    learning_rate: float = 1e-3  # of Adam; falls to 0 along a cosine
    warmup: int = 1_000  # steps in which the weight of the rate grows from 0
    tested: int = 1_000  # test examples, the first
    nll_draws: int = 100  # of the importance-weighted NLL; 5000 in published tables


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


def build(config: Config, event: tuple[int, ...]) -> dict[str, Part]:
    """A part for each posterior."""
    check(config, "width", "latents", "flows", "made", "columns", "tested", "nll_draws")
    size, flows = config.latents, config.flows
    posteriors = {
        "diagonal": ae.Gaussian(size),
        "planar": ae.Planar(size, flows),
        "iaf": ae.InverseAutoregressive(size, flows, (config.made,)),
        "sylvester": ae.Sylvester(size, config.columns, flows),
    }
    tx = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
    beta = optax.linear_schedule(0.0, 1.0, max(config.warmup, 1))
    # Sampled for all alike: only the diagonal posterior has a closed KL.
    objective = ae.elbo(beta, ae.losses.rate())
    encoder, decoder = variational.nets("mlp", event, config.width)
    prior, likelihood = ae.priors.Standard(), ae.likelihoods.Bernoulli()
    models = {
        label: ae.Autoencoder(encoder, posterior, decoder, prior, likelihood)
        for label, posterior in posteriors.items()
    }
    return {label: Part(model, objective, tx, average=0.999) for label, model in models.items()}


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Test figures of each part and seed, and the gap that a better posterior would close."""
    test = splits[2].take(config.tested)
    result = {}
    for label, part in trained.items():
        found = variational.bounds(config.nll_draws, part, test)
        result[label] = {**found, "gap": -found["elbo"] - found["nll"]}
    return result


def page(config: Config, models: Models, splits: Splits) -> Page:
    """Reconstructions of each part."""
    sections = [reconstructions_section(models, splits[2])]
    return Page("Posteriors made by flows", __doc__ or "", sections)


def measured(config: Config, found: Measured) -> list[Any]:
    """NLL and bounds of all seeds."""
    values = {
        label: {name: row[name].values for name in NAMES if name in row}
        for label, row in groups(found.result).items()
    }
    picture = Picture(
        "flows",
        "Every point is one seed, a thick line the median over seeds. Lower is better but for the "
        "ELBO. The last panel is what the ELBO loses beside the importance-weighted NLL: less of "
        "it is what a richer posterior is for.",
        partial(plots.distributions, values=values, names=NAMES),
    )
    return [Section("Flows", f"Each posterior after {config.steps:,} steps.", [picture])]


EXPERIMENT = Experiment(
    name="image-flows",
    config=Config,
    data=image_data(binarise="static"),
    build=build,
    figures=figures,
    page=page,
    measured=measured,
    presets={"paper": PAPER},
)
