"""Loggers: they receive the lines of metrics.jsonl as these are written.

    Run(folder, config, loggers=[TensorBoard("logs/digits"), WeightsAndBiases("digits")])

A logger is a function (step, {name: value}); a value is a number, f64[S] for S seeds, or f64[S, L].
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from aejax.optional import needs

Logger: TypeAlias = Callable[[int, Mapping[str, np.ndarray]], None]


class TensorBoard:
    """Writes event files for TensorBoard, with tensorboardX (the extra `logs`).

    Args:
      folder: where the event files go.
    """

    def __init__(self, folder: str | os.PathLike):
        self.writer: Any = needs("tensorboardX", "TensorBoard").SummaryWriter(str(folder))

    def __call__(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Writes one line; each seed and latent has a curve of its own."""
        for name, value in flat(values).items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()


class WeightsAndBiases:
    """Logs to Weights & Biases, by default offline: `wandb sync` uploads later (the extra `logs`).

    Args:
      project: the project's name.
      mode: "offline" or "online".
      **options: further arguments of `wandb.init`, such as name, config or dir.
    """

    def __init__(self, project: str, mode: str = "offline", **options: Any):
        wandb = needs("wandb", "WeightsAndBiases")
        self.run: Any = wandb.init(project=project, mode=mode, **options)

    def __call__(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Logs one line."""
        self.run.log(flat(values), step=step)


def flat(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Names each number of a line: "loss", "loss/0" for a seed, "kl/0/3" for its latent."""
    found = {}
    for name, value in values.items():
        for place, number in np.ndenumerate(np.asarray(value, np.float64)):
            found["/".join([name, *map(str, place)])] = float(number)
    return found
