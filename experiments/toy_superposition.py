"""Toy superposition: do sparse autoencoders find 512 features in 256 dimensions?

    python -m experiments toy-superposition

The data is that of Sharkey, Braun and Millidge (2022): 512 correlated features, some far more
common than others, of which on average 5 are active in a token. The first job is the paper's
experiment: L1 with atoms of norm 1, for several weights of the L1 norm. For comparison, TopK,
BatchTopK and JumpReLU are trained for several numbers of active latents. MMCS is the paper's score:
the mean over features of the largest cosine with an atom. The experiment takes 5 minutes on one CPU
core. Expect an MMCS of 0.901 for L1 with weight 1, which leaves 8.2 latents active, of 0.873 for
BatchTopK with 5 active latents, and of 0.889 for JumpReLU with 5.
"""

from __future__ import annotations

import dataclasses
import functools

import aejax as ae
from aejax.data.synthetic.superposition import Superposition
from experiments.shared import synth
from experiments.shared.codes import Shape, codes, priced, swept
from experiments.shared.numbers import Count
from experiments.shared.training import Job, Numbers


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    steps: Count = 5_000  # optimiser steps
    batch: Count = 256  # examples in a batch
    log_every: Count = 50  # steps between two lines of metrics.jsonl
    tokens: Count = 200_000  # number of train tokens
    features: Count = 512  # number of true features
    size: Count = 256  # dimensions of a token
    latents: Count = 512  # latents of each dictionary
    l1: tuple[float, ...] = (1.0, 0.3, 3.0)  # weights of the L1 norm
    l0: tuple[int, ...] = (5, 3, 8)  # numbers of active latents of the other codes
    learning_rate: float | None = None  # Adam's learning rate; None: the default of the recipes


def recipe(config: Config) -> Superposition:
    """Returns the description of the data: its features, and how often each is active."""
    return Superposition(config.features, config.size)


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns name -> `Job` (models and their training) for each code.

    The job of L1 sweeps over weights of the L1 norm, and the others over L0.
    """
    if (
        not config.l1
        or not config.l0
        or not 1 <= min(config.l0) <= max(config.l0) <= config.latents
    ):
        raise ae.UserError(
            f"--l1 is {config.l1} and --l0 is {config.l0}: give at least one weight for --l1, and "
            f"numbers of active latents from 1 to {config.latents} for --l0"
        )
    shape = Shape(event, config.latents, max(config.l0), config.steps, config.learning_rate)
    made = codes(shape)

    jobs = {"l1": swept(functools.partial(priced, shape), config.l1)}
    return jobs | {n: swept(made[n], config.l0) for n in ("topk", "batchtopk", "jumprelu")}


EXPERIMENT = synth.experiment(
    "toy-superposition", Config, recipe, build, "Toy superposition", __doc__ or ""
)
