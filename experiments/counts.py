"""Count models of made single-cell data, beside a Gaussian of the logarithms of the counts.

    python -m experiments counts --seeds 3

Counts of 100 genes in 6,000 cells of 6 types are drawn from negative binomials
(`experiments/shared/made_counts.py` has the recipe). The same nets are trained with four
likelihoods: Poisson, negative binomial (NB), zero-inflated NB, and a Gaussian of log(1 + count).
The sizes of the cells are known, as in scVI with its observed library size: count models multiply
the decoded shares by them (`nets.Shares`). All figures are nats per cell of a discrete
distribution: the Gaussian's is its mass between count - 1/2 and count + 1/2, on which it is also
trained. `truth` is -log p of the counts given the means and dispersions that they were drawn from,
which no model of p(x) can reach. `types` is the accuracy with which the nearest train cell in the
latent space gives a test cell its type. `python -m experiments count-peers runs/counts
--peer-python PATH` trains scVI itself on the same cells, with the same sizes, with its own learning
rate and with that of these models.

The recipe is a high learning rate that falls to 0, and a decoder whose hidden layer is normalised;
both were chosen by validation cells.

Three seeds took 4 minutes of CPU time on a shared machine of 2 CPU cores, and each model of scVI
40 seconds. Expect 196.6 nats with Poisson, 160.4 with NB, 160.6 with zero-inflated NB and 164.3
with the Gaussian; the truth: 154.2. scVI has 162.8 (NB) with its own learning rate and 161.0 with
this one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import aejax as ae
from aejax import contracts, evaluation
from aejax.data import Split, changed
from aejax.likelihoods.count_densities import negative_binomial
from aejax.report import Picture, Section
from aejax.report.drawing import scatter
from aejax.types import Batch, Key, Variables
from experiments.shared.experiment import Experiment, Members, Models, Page, Splits
from experiments.shared.made_counts import Recipe, parts
from experiments.shared.numbers import Count
from experiments.shared.place import Place
from experiments.shared.training import Job, Numbers
from experiments.shared.variational import TEST_SEED

KINDS = ("poisson", "nb", "zinb", "gaussian")


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    steps: Count = 3_000  # optimiser steps
    batch: Count = 128  # examples in a batch
    cells: Count = 6_000  # number of cells, of which 70 % are train and 20 % test
    genes: Count = 100  # number of genes
    width: Count = 128  # units of the hidden layer of each net
    latents: Count = 8  # number of latents
    learning_rate: float = 1e-2  # learning rate of Adam, which falls to 0
    draws: Count = 200  # samples of the importance-weighted likelihood


@dataclasses.dataclass(frozen=True)
class Sized:
    """Makes log(1 + x) the input, and the logarithm of the cell's size the context."""

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Applies the change to one batch of counts f32[B, genes]."""
        size = jnp.maximum(jnp.sum(batch.x, axis=1, keepdims=True), 1.0)
        return batch._replace(x=jnp.log1p(batch.x), context={"log_size": jnp.log(size)})


def data(config: Config, place: Place) -> Splits:
    """Returns the splits of the made counts; the labels are the types."""
    made = Recipe(config.cells, config.genes).made()
    three = [(made.counts[rows], made.kinds[rows]) for rows in parts(config.cells)]
    splits = ae.data.splits(three[0], three[1], three[2])
    train, validation, test = (changed(split, Sized()) for split in splits)
    return train, validation, test


def likelihood(kind: str) -> contracts.Likelihood:
    """Returns the likelihood of a model by its name."""
    made = ae.likelihoods
    return {
        "poisson": made.Poisson(),
        "nb": made.NegativeBinomial(),
        "zinb": made.ZeroInflated(made.NegativeBinomial()),
        "gaussian": made.LogGaussian(),
    }[kind]


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns name -> `Job`: a model with each likelihood."""
    tx = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
    jobs = {}
    for kind in KINDS:
        explain = likelihood(kind)
        net = ae.nets.MLP((config.width,), explain.shape(event), ae.nets.LayerNormed())
        model = ae.Autoencoder(
            ae.nets.MLP((config.width,)),
            ae.Gaussian(config.latents),
            net if kind == "gaussian" else ae.nets.Shares(net),
            ae.priors.Standard(),
            explain,
        )
        warm = optax.linear_schedule(0.0, 1.0, min(500, config.steps))
        jobs[kind] = Job(model, ae.elbo(warm), tx, average=0.99)
    return jobs


def truth(config: Config) -> float:
    """Returns the mean over test cells of -log p of their counts given the true means, in nats."""
    made, rows = Recipe(config.cells, config.genes).made(), parts(config.cells)[2]
    counts, means = made.counts[rows], made.means[rows]
    log_thetas = np.broadcast_to(np.log(made.thetas), means.shape)
    wide = (np.float32(a) for a in (counts, np.log(means), log_thetas))
    return -float(np.mean(np.sum(np.asarray(jax.jit(negative_binomial)(*wide)), axis=1)))


def accuracy(model: Any, variables: Variables, splits: Sequence[Split]) -> float:
    """Returns the share of test cells whose nearest train cell, in the latents, has their type."""
    train, test = (evaluation.latents(model, variables, splits[i]) for i in (0, 2))
    squares = np.sum(train**2, 1)[None] - 2.0 * test @ train.T
    found = np.asarray(splits[0].labels)[np.argmin(squares, axis=1)]
    return float(np.mean(found == np.asarray(splits[2].labels)))


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Computes the held-out likelihood of each model, and how well its latents tell types apart."""

    def one(model: Any, variables: Variables) -> dict[str, Any]:
        key = jax.random.key(TEST_SEED)
        found = evaluation.nll(model, variables, splits[2], key, draws=config.draws, batch=200)
        bound = evaluation.means(evaluation.elbo(model, variables, splits[2], key, draws=10))
        return {
            "nll": np.mean(found.nll, dtype=np.float64),
            "rate": bound["rate"],
            "types": accuracy(model, variables, splits),
        }

    found = {
        name: evaluation.over_seeds(partial(one, done.job.model), done.variables, done.seeds)
        for name, done in trained.items()
    }
    seeds = next(iter(trained.values())).seeds
    return {**found, "truth": {"nll": np.full(seeds, truth(config))}}


def page(config: Config, models: Models, splits: Splits) -> Page:
    """Builds the report page: the latents of test cells, coloured by type."""
    shown = []
    for kind in KINDS:
        means = evaluation.latents(*models[kind], splits[2])
        plane = np.linalg.svd(means - means.mean(0), full_matrices=False)[2][:2]
        shown.append(
            Picture(
                kind,
                f"{kind}: the first two principal components of the test cells' latents, by type.",
                partial(
                    scatter.scatter, points=means @ plane.T, labels=np.asarray(splits[2].labels)
                ),
            )
        )
    text = "Cells of a type should lie together; no model has seen the types."
    return Page("Count models of made cells", __doc__ or "", [Section("Latents", text, shown)])


EXPERIMENT = Experiment(
    name="counts", config=Config, data=data, build=build, figures=figures, page=page
)
