"""Early stopping: ends a training whose validation result has stopped improving.

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
    """A stopping rule: training ends when a validation result has not improved for some time.

    A result improves if it falls below the smallest one so far.

    Args:
      measurements: the number of measurements in a row without improvement after which to stop.
      past: all results from before a restart, in order, so that a resumed run stops at the same
        step as one that was never interrupted.
      least_change: by how much a result must fall below the smallest result so far to be an
        improvement.
    """

    def __init__(self, measurements: int, past: Iterable[Any] = (), least_change: float = 0.0):
        at_least(1, "the patience in measurements", measurements)
        self.measurements, self.least_change = measurements, least_change
        self.best, self.waited = math.inf, 0
        for value in past:
            self.see(value)

    def see(self, value: Any) -> bool:
        """Records a validation result and returns whether it is an improvement.

        Args:
          value: the result, a number, or f32[S], of which the mean is used. A value that is not
            finite is no improvement.
        """
        number = float(np.mean(value))
        better = number < self.best - self.least_change
        self.best, self.waited = (number, 0) if better else (self.best, self.waited + 1)
        return better

    def __call__(self) -> bool:
        """Returns whether the training should stop."""
        return self.waited >= self.measurements
