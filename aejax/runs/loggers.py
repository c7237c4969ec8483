"""Loggers: functions that receive each line of metrics.jsonl when it is written.

    Run(folder, config, loggers=[TensorBoard("logs/digits"), WeightsAndBiases("digits")])

A logger is a function that is called with (step, {name: value}). A value is a number, f64[S] with
one number for each of S models trained together, or f64[S, L] with one for each of their latents.
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
      folder: the folder to which the event files are written.
    """

    def __init__(self, folder: str | os.PathLike):
        self.writer: Any = needs("tensorboardX", "TensorBoard").SummaryWriter(str(folder))

    def __call__(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Writes the metrics of one step; each model and each latent gets a separate curve."""
        for name, value in flat(values).items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()


class WeightsAndBiases:
    """Logs to Weights & Biases (the extra `logs`).

    By default it logs offline; the command `wandb sync` can upload the logs later.

    Args:
      project: the project's name.
      mode: "offline" or "online".
      **options: further arguments of `wandb.init`, such as name, config or dir.
    """

    def __init__(self, project: str, mode: str = "offline", **options: Any):
        wandb = needs("wandb", "WeightsAndBiases")
        self.run: Any = wandb.init(project=project, mode=mode, **options)

    def __call__(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Logs the metrics of one step."""
        self.run.log(flat(values), step=step)


def flat(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Converts arrays to named numbers: "loss", "loss/0" (seed 0), "kl/0/3" (seed 0, latent 3)."""
    found = {}
    for name, value in values.items():
        for place, number in np.ndenumerate(np.asarray(value, np.float64)):
            found["/".join([name, *map(str, place)])] = float(number)
    return found
