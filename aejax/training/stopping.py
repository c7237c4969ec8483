"""Early stopping: ends a training whose validation figure no longer falls.

patience = Patience(5, past=run.figures("nll"))
for state, metrics in loop(learner, state, batches, steps=50_000, stop=patience):
    figures = {"nll": ...}
    patience.see(figures["nll"])
    run.log(state, metrics, figures)
    run.save(state, figures)                 # Run(..., best="nll") keeps the best state
aejax.load(folder, best=True)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from aejax.checks import at_least


class Patience:
    """Whether a figure has not fallen to a new least value for a number of measurements.

    Args:
      measurements: how many measurements in a row may bring no new least value.
      past: the figures measured before a resume, from the first on, so that a resumed run stops
        where one that was never killed does.
      least_change: by how much a value must be below the least one to count as new.
    """

    def __init__(self, measurements: int, past: Iterable[Any] = (), least_change: float = 0.0):
        at_least(1, "the patience in measurements", measurements)
        self.measurements, self.least_change = measurements, least_change
        self.best, self.waited = math.inf, 0
        for value in past:
            self.see(value)

    def see(self, value: Any) -> bool:
        """Notes a measured figure, a number or f32[S] whose mean counts; tells if it is the best.

        A value that is not finite counts as no new best.
        """
        number = float(np.mean(value))
        better = number < self.best - self.least_change
        self.best, self.waited = (number, 0) if better else (self.best, self.waited + 1)
        return better

    def __call__(self) -> bool:
        """Returns whether the training should stop."""
        return self.waited >= self.measurements
