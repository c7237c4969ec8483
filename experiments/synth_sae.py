"""Every sparse code on activations whose features are known: what it explains and what it finds.

    python -m experiments synth-sae
    python -m experiments peers runs/synth-sae --peer-python PATH   # with sae-lens and torch

512 features of a cut SynthSAEBench in 64 dimensions, 5.9 of them active in a token, from an
activation store; dictionaries of 256 latents. Each code is trained at three numbers of active
latents and with three seeds, all nine in one compiled program on one stream of tokens. The second
command trains SAELens' SAEs on the same tokens in the same order and puts them beside. 12 minutes
on one CPU core, and 10 for the peers; expected at 3 active latents, explained variance (MCC): L1
0.38 (0.55), April 0.62 (0.57), annealed 0.73 (0.65), TopK by norm 0.81 (0.66), AbsTopK 0.82 (0.60),
Matryoshka 0.83 (0.66), TopK 0.84 (0.62), BatchTopK 0.86 (0.66), Gated 0.86 (0.67), JumpReLU 0.88
(0.67). The literature's order, L1 < Gated ~ TopK <= BatchTopK ~ JumpReLU, but that Gated lies above
TopK and JumpReLU above BatchTopK by more than their standard errors.
"""

from __future__ import annotations

import dataclasses

import aejax as ae
from aejax.data.synthetic.synthbench import SynthBench
from experiments.shared import synth
from experiments.shared.codes import Shape, codes, swept
from experiments.shared.training import Numbers, Part, check


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The experiment's numbers."""

    seeds: int = 3  # of each code and number of active latents; they share one stream of tokens
    steps: int = 5_000
    batch: int = 256
    log_every: int = 50
    tokens: int = 400_000  # of the train split
    features: int = 512  # of the truth
    size: int = 64  # dimensions
    least: float = 0.01  # probability of the rarest feature
    latents: int = 256  # of each dictionary
    l0: tuple[int, ...] = (3, 2, 4)  # active latents; the first is where peers are compared
    learning_rate: float = 1e-3  # of Adam


def recipe(config: Config) -> SynthBench:
    """The features, and how often each is active."""
    return SynthBench(config.features, config.size, least=config.least)


def build(config: Config, event: tuple[int, ...]) -> dict[str, Part]:
    """Each code, swept over the numbers of active latents."""
    check(config, "tokens", "features", "size", "latents")
    if not config.l0 or not 1 <= min(config.l0) <= max(config.l0) <= config.latents:
        raise ae.UserError(
            f"--l0 is {config.l0}: give numbers from 1 to the {config.latents} latents"
        )
    shape = Shape(event, config.latents, max(config.l0), config.steps, config.learning_rate)
    return {name: swept(make, config.l0) for name, make in codes(shape).items()}


EXPERIMENT = synth.experiment(
    "synth-sae", Config, recipe, build, "Sparse codes on known features", __doc__ or ""
)
