"""The background writer of checkpoints: training goes on while one is on its way to the disk."""

from __future__ import annotations

import concurrent.futures
import pathlib
import time
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np

from aejax import checkpoint, manifest
from aejax.errors import UserError
from aejax.leaves import Leaf, host_leaves
from aejax.types import State

BEST_SECONDS = 2.0  # from one checkpoint to one that is only written for being the best


class Writer:
    """One checkpoint at a time; what goes wrong in the background is raised at the next call.

    Args:
      folder: the run's `checkpoints` folder.
      keep: how many of the newest stay.
      best: a figure; the checkpoint with its smallest value stays too.
      before_commit: called in the background right before a checkpoint appears.
      writes: False in all processes but one, which only hand over their share of the state.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        keep: int,
        best: str | None,
        before_commit: Callable[[], None],
        writes: bool,
    ):
        self._folder, self._keep, self._best = folder, keep, best
        self._before_commit, self._writes = before_commit, writes
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._future: concurrent.futures.Future[None] | None = None
        self._begun = time.monotonic()
        self._best_value: float | None = None
        self.step: int | None = None  # of the newest checkpoint, written or on its way

    def resume(self, step: int | None) -> None:
        """Starts the clock; step is that of the checkpoint that was restored, if any."""
        self.step, self._begun = step, time.monotonic()
        found = manifest.best_figure(self._folder, self._best) if self._best else None
        self._best_value = None if found is None else found[1]

    def due(self, seconds: float) -> bool:
        """Whether the last one is so many seconds old and none is on its way; the writer's say."""
        idle = self._future is None or self._future.done()
        return self._writes and idle and time.monotonic() - self._begun >= seconds

    def better(self, figures: Mapping[str, float]) -> bool:
        """Whether the figure `best` is the smallest so far, and there is time to write it."""
        return self._smallest(figures) and self.due(BEST_SECONDS)

    def _smallest(self, figures: Mapping[str, float]) -> bool:
        value = figures.get(self._best or "")
        return value is not None and (self._best_value is None or value < self._best_value)

    def start(self, state: State, figures: Mapping[str, float]) -> None:
        """Copies a state to the host and begins to write it, once the one before is written.

        Raises:
          UserError: a parameter is not finite, or the checkpoint before could not be written.
        """
        self.wait()
        step = int(state.step)
        if step == self.step and not figures:
            return
        leaves = host_leaves(state)
        _check_finite(step, leaves)
        if self._smallest(figures):
            self._best_value = figures[str(self._best)]
        self.step, self._begun = step, time.monotonic()
        if self._writes:
            self._future = self._pool.submit(self._write, step, leaves, figures)

    def wait(self) -> None:
        """Waits until what was begun is on the disk.

        Raises:
          UserError: it could not be written.
        """
        if self._future is not None:
            future, self._future = self._future, None
            future.result()

    def poll(self) -> None:
        """Raises what went wrong in the background, without waiting."""
        if self._future is not None and self._future.done():
            self.wait()

    def close(self) -> None:
        """Waits, and ends the background thread."""
        self._pool.shutdown()

    def _write(self, step: int, leaves: Mapping[str, Leaf], figures: Mapping[str, float]) -> None:
        checkpoint.write(self._folder, step, leaves, figures, self._before_commit)
        manifest.prune(self._folder, self._keep, self._best)


def _check_finite(step: int, leaves: Mapping[str, Leaf]) -> None:
    """A state that training cannot go on from must not displace one that it can."""
    for path, leaf in leaves.items():
        if not path.startswith("params/") or not jnp.issubdtype(leaf.array.dtype, jnp.inexact):
            continue
        if not np.isfinite(leaf.array).all():
            raise UserError(
                f"{path} holds NaN or infinity after step {step - 1}, so no checkpoint of it was "
                "written: lower the learning rate or warm it up"
            )
