"""Toy superposition: does a sparse code find 512 features in 256 dimensions, and at which price?

    python -m experiments toy-superposition

Sharkey, Braun and Millidge (2022): 512 correlated features, 5 of them active in a token, some far
commoner than others. The paper's own experiment is the first part: L1 with unit atoms, here at
several prices in one program; TopK, BatchTopK and JumpReLU at several numbers of active latents
stand beside. MMCS is the paper's figure, the mean over features of the largest cosine of an atom.
5 minutes on one CPU core; expect an MMCS of 0.87 of L1 at price 1 and of BatchTopK at 5, and 0.88
of JumpReLU at 5.
"""

from __future__ import annotations

import dataclasses
import functools

import aejax as ae
from aejax.data.synthetic.superposition import Superposition
from experiments.shared import synth
from experiments.shared.codes import Shape, codes, priced, swept
from experiments.shared.training import Numbers, Part, check


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The experiment's numbers."""

    steps: int = 5_000
    batch: int = 256
    log_every: int = 50
    tokens: int = 200_000  # of the train split
    features: int = 512  # of the truth
    size: int = 256  # dimensions
    latents: int = 512  # of each dictionary
    l1: tuple[float, ...] = (1.0, 0.3, 3.0)  # prices of the L1 norm
    l0: tuple[int, ...] = (5, 3, 8)  # active latents of the other codes
    learning_rate: float = 1e-3  # of Adam


def recipe(config: Config) -> Superposition:
    """The features, and how often each is active."""
    return Superposition(config.features, config.size)


def build(config: Config, event: tuple[int, ...]) -> dict[str, Part]:
    """L1 at several prices, and other codes at several numbers of active latents."""
    check(config, "tokens", "features", "size", "latents")
    if (
        not config.l1
        or not config.l0
        or not 1 <= min(config.l0) <= max(config.l0) <= config.latents
    ):
        raise ae.UserError(
            f"--l1 is {config.l1} and --l0 {config.l0}: give one price or more, and numbers from 1 "
            f"to the {config.latents} latents"
        )
    shape = Shape(event, config.latents, max(config.l0), config.steps, config.learning_rate)
    made = codes(shape)

    parts = {"l1": swept(functools.partial(priced, shape), config.l1)}
    return parts | {n: swept(made[n], config.l0) for n in ("topk", "batchtopk", "jumprelu")}


EXPERIMENT = synth.experiment(
    "toy-superposition", Config, recipe, build, "Toy superposition", __doc__ or ""
)
