"""Data whose mean is 20 times its deviation: latents die unless the mean is taken off first.

    python -m experiments synth-shift

The features of synth-sae, and a constant added to every token so that ||mean|| / ||std|| = 20. TopK
with 32 of 512 latents and AuxK, with the mean taken off (the default) and without. A latent is dead
that the last 1,000 steps did not use: the figure `silent`. On 2 CPU cores that others use too 11
minutes; expected: 0 % with the mean taken off, 92 % without.
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
from aejax.report.frontier import dead_section
from aejax.types import Variables
from aejax.variables import AGE, get
from experiments.shared import synth
from experiments.shared.experiment import Members, Splits
from experiments.shared.training import Numbers, Part, check

SILENCE = 1_000  # steps


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The experiment's numbers."""

    steps: int = 5_000
    batch: int = 2_048
    tokens: int = 400_000  # of the train split
    features: int = 512  # of the truth
    size: int = 64  # dimensions
    latents: int = 512  # 8 a dimension
    k: int = 32  # active latents
    gamma: float = 20.0  # ||mean|| / ||std|| of the data
    learning_rate: float = 1e-3  # of Adam


def recipe(config: Config) -> SynthBench:
    """The features, and a constant that is gamma times as long as the deviations."""
    made = SynthBench(config.features, config.size, least=0.01)
    tokens = made.block(0).dense(config.features) @ made.dictionary()
    offset = round(config.gamma * float(np.linalg.norm(tokens.std(axis=0))), 1)
    return dataclasses.replace(made, offset=offset)


def build(config: Config, event: tuple[int, ...]) -> dict[str, Part]:
    """The mean taken off, and the data as it is."""
    check(config, "tokens", "features", "size", "latents", "k")
    if config.k > config.latents:
        raise ae.UserError(f"--k is {config.k}, more than the {config.latents} latents: give fewer")

    def part(centre: bool) -> Part:
        scale = ae.nets.Scale
        code = ae.TopK(config.latents, config.k)  # pyright: ignore[reportCallIssue]
        model = ae.Autoencoder(scale(), code, ae.nets.Dictionary(event, scale=scale()))
        objective = ae.merge(ae.sparse(revival=1 / 32), ae.watch(gamma=ae.losses.gamma))
        start = (ae.standardised(centre=centre), ae.tied)
        return Part(model, objective, optax.adam(config.learning_rate), initialise=start)

    return {"centred": part(True), "uncentred": part(False)}


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Silent latents, and the test figures of each part."""

    def one(model: Any, variables: Variables) -> dict[str, Any]:
        ages = np.asarray(get(variables, AGE))
        return {"silent": np.mean(ages >= SILENCE), **synth.judged(model, variables, splits[2])}

    return {
        name: evaluation.over_seeds(
            lambda variables, model=part.part.model: one(model, variables),
            part.variables,
            part.seeds,
        )
        for name, part in trained.items()
    }


def dead(config: Config, measured: Any) -> list[Any]:
    """Dead latents over time."""
    section = dead_section(measured.histories)
    return [section] if section else []


EXPERIMENT = synth.experiment(
    "synth-shift", Config, recipe, build, "Data with a large mean", __doc__ or ""
)._replace(figures=figures, measured=dead)
