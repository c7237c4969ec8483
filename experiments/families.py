"""Five models of pythae written in parts and terms, beside pythae's own on the same batches.

    python -m experiments families --manual-dir FOLDER --seeds 3
    python -m experiments family-peers runs/families --peer-python PATH

The first command trains VAE, IWAE, VAMP, INFOVAE_MMD and VQVAE as `aejax/FAMILIES.md` writes them,
on 20,000 digits whose pixels are thresholded at 1/2. The second trains pythae's classes of the same
names, with the same sizes of nets, batches, optimiser and learning rate, and reads their weights
into these models. Both are judged alike: `nll` is the importance-weighted estimate of -log p(x) of
test digits, in nats, and `error` the sum over pixels of the squared error of the mean
reconstruction. VQVAE has no p(x) and is judged by `error` alone.

Three seeds took 6 minutes of CPU time with `--steps 1000 --train 10000 --tested 500 --draws 100` on
a shared machine of 2 CPU cores, and pythae's models 12 minutes. Expect 96.7 nats for VAE, 95.6 for
IWAE, 92.0 for VAMP and 96.8 for INFOVAE_MMD, and an error of 21 for VQVAE; pythae's models are 0.7
to 1.5 nats worse, and their VQVAE is as good.
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
from aejax.report import Picture, Section
from aejax.report.drawing import plots
from aejax.types import Batch, Variables
from experiments.shared.experiment import Experiment, Members, Models, Page, Splits
from experiments.shared.images import thresholded
from experiments.shared.numbers import Count
from experiments.shared.place import Place, say
from experiments.shared.training import Job, Numbers
from experiments.shared.variational import TEST_SEED

CODES = 512  # codebook vectors of VQVAE, and
PSEUDO_INPUTS = 50  # pseudo-inputs of VAMP: pythae's defaults
WIDTH = 512  # units of the one hidden layer of encoder and decoder: pythae's default nets


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    steps: Count = 2_000  # optimiser steps
    batch: Count = 100  # examples in a batch
    train: Count = 20_000  # number of train digits
    tested: Count = 2_000  # number of test digits
    latents: Count = 16  # number of latents
    iwae_draws: Count = 5  # codes drawn for each example in the training of IWAE
    learning_rate: float = 1e-3  # learning rate of Adam
    draws: Count = 200  # samples of the importance-weighted likelihood


def data(config: Config, place: Place) -> Splits:
    """Returns the splits of digits with binary pixels."""
    return thresholded("mnist", place, config.train, config.tested)


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns name -> `Job`: the five models by the names of pythae."""

    gaussian, standard = ae.Gaussian(config.latents), ae.priors.Standard()

    def job(
        objective: Any, bottleneck: Any = gaussian, prior: Any = standard, **options: Any
    ) -> Job:
        decoder, likelihood = ae.nets.MLP((WIDTH,), shape=event), ae.likelihoods.Bernoulli()
        model = ae.Autoencoder(ae.nets.MLP((WIDTH,)), bottleneck, decoder, prior, likelihood)
        return Job(model, objective, optax.adam(config.learning_rate), **options)

    sampled, losses = ae.elbo(rate=ae.losses.rate()), ae.losses
    alpha, scale = 0.0, 10.0
    info = {"rate": (1.0 - alpha, losses.kl), "mmd": (alpha + scale - 1.0, losses.mmd())}
    # pythae's VQVAE minimises the squared error, and a commitment averaged over dimensions. From an
    # encoder of vectors, such as its default net, it quantises each dimension by itself.
    quantised = {
        "error": (1.0, losses.squared_error),
        "commitment": (0.25 / config.latents, losses.commitment),
    }
    return {
        "VAE": job(ae.elbo()),
        "IWAE": job(sampled, draws=config.iwae_draws, bound=ae.bounds.iwae),
        "VAMP": job(sampled, prior=ae.priors.Vamp(event, PSEUDO_INPUTS)),
        "INFOVAE_MMD": job(ae.merge(ae.reconstruction(), info)),
        "VQVAE": job(quantised, ae.VectorQuantised(CODES, 1, (config.latents,)), None),
    }


def judged(name: str, model: Any, variables: Variables, test: Any, draws: int) -> dict[str, float]:
    """Returns the measures of one model on the test digits."""
    x = test.arrays["x"]
    made = reconstructed(model, variables, x)
    found = {"error": float(np.mean(np.sum(np.square(made - x), axis=(1, 2, 3))))}
    if name == "VQVAE":
        return found
    nll = evaluation.nll(model, variables, test, jax.random.key(TEST_SEED), draws=draws, batch=200)
    return {"nll": float(np.mean(nll.nll, dtype=np.float64)), **found}


def reconstructed(model: Any, variables: Variables, x: np.ndarray) -> np.ndarray:
    """Returns the means that the codes' means decode to, f32[N, *event]."""

    @jax.jit
    def run(variables: Variables, x: Any) -> Any:
        bound = model.bind(variables)
        return bound.mean(bound(Batch(x, x)).prediction)

    return np.asarray(run(variables, x))


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Computes the measures of each model; each has one value for each seed."""
    found = {}
    for name, done in trained.items():
        say(f"{name}: measures of the test digits")
        rows = [
            judged(
                name, done.job.model, evaluation.member(done.variables, i), splits[2], config.draws
            )
            for i in range(done.seeds)
        ]
        found[name] = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    return found


def page(config: Config, models: Models, splits: Splits) -> Page:
    """Builds the report page: test digits, and their reconstructions by each model."""
    x = splits[2].arrays["x"][:14]
    rows = [x, *(reconstructed(*models[name], x) for name in models)]
    shown = Picture(
        "reconstructions",
        "Test digits in the first row, below it their reconstructions by each model.",
        functools.partial(
            plots.image_grid, images=np.stack(rows), row_labels=["digit", *models], tile=48
        ),
    )
    text = "The models differ in posterior, prior and objective, not in their nets."
    return Page("Five models of pythae", __doc__ or "", [Section("Digits", text, [shown])])


EXPERIMENT = Experiment(
    name="families", config=Config, data=data, build=build, figures=figures, page=page
)
