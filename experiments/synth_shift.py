"""Data whose mean is 20 times its standard deviation: most latents die unless it is subtracted.

    python -m experiments synth-shift

The data has the features of synth-sae, and a constant is added to every token so that ||mean|| /
||std|| = 20. A TopK with 32 of 512 latents active and the AuxK loss is trained twice: with the mean
subtracted, which is the default, and without. `silent` is the share of latents that were not active
in the last 1,000 steps. The experiment takes 11 minutes on 2 shared CPU cores. Expect `silent` to
be 0 % with the mean subtracted, and 92 % without.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import optax

import aejax as ae
from aejax import evaluation
from aejax.data.synthetic.synthbench import SynthBench
from aejax.types import Variables
from aejax.variables import AGE, get
from experiments.shared import synth
from experiments.shared.experiment import Members, Splits
from experiments.shared.numbers import Count
from experiments.shared.training import Job, Numbers

SILENCE = 1_000  # number of steps without activation after which a latent is silent


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    steps: Count = 5_000  # optimiser steps
    batch: Count = 2_048  # examples in a batch
    tokens: Count = 400_000  # number of train tokens
    features: Count = 512  # number of true features
    size: Count = 64  # dimensions of a token
    latents: Count = 512  # latents of each dictionary; 512 are 8 for each dimension
    k: Count = 32  # number of active latents
    gamma: float = 20.0  # ||mean|| / ||std|| of the data
    learning_rate: float = 1e-3  # learning rate of Adam


def recipe(config: Config) -> SynthBench:
    """Returns the description of data whose mean is `gamma` times its standard deviation."""
    made = SynthBench(config.features, config.size, least=0.01)
    tokens = made.block(0).dense(config.features) @ made.dictionary()
    offset = round(config.gamma * float(np.linalg.norm(tokens.std(axis=0))), 1)
    return dataclasses.replace(made, offset=offset)


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns two `Job`s (a model and its training): with the data's mean subtracted, or not."""
    if config.k > config.latents:
        raise ae.UserError(
            f"--k is {config.k}: give at most {config.latents}, the number of latents"
        )

    def job(centre: bool) -> Job:
        scale = ae.nets.Scale
        code = ae.TopK(config.latents, config.k)  # pyright: ignore[reportCallIssue]
        model = ae.Autoencoder(scale(), code, ae.nets.Dictionary(event, scale=scale()))
        objective = ae.merge(ae.sparse(auxk=1 / 32), ae.watch(gamma=ae.losses.gamma))
        start = (ae.standardised(centre=centre), ae.tied)
        return Job(model, objective, optax.adam(config.learning_rate), initialise=start)

    return {"centred": job(True), "uncentred": job(False)}


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Computes the share of silent latents and the test results of each job."""

    def one(model: Any, variables: Variables) -> dict[str, Any]:
        ages = np.asarray(get(variables, AGE))
        return {"silent": np.mean(ages >= SILENCE), **synth.judged(model, variables, splits[2])}

    return {
        name: evaluation.over_seeds(
            lambda variables, model=done.job.model: one(model, variables),
            done.variables,
            done.seeds,
        )
        for name, done in trained.items()
    }


EXPERIMENT = synth.experiment(
    "synth-shift", Config, recipe, build, "Data with a large mean", __doc__ or ""
)._replace(figures=figures, findings=lambda config, finished: [])
