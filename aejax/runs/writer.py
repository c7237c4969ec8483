"""The background writer of checkpoints: training goes on while one is on its way to the disk."""

from __future__ import annotations

import concurrent.futures
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.runs import checkpoint, manifest
from aejax.runs.leaves import Leaf, host_leaves
from aejax.types import State

Copy: TypeAlias = tuple[int, Mapping[str, Leaf], Mapping[str, float]]  # step, leaves, figures
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
        self._held: Copy | None = None  # the best, written too little after the one before
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
        """Whether the figure `best` is the smallest so far."""
        value = figures.get(self._best or "")
        return value is not None and (self._best_value is None or value < self._best_value)

    def start(self, state: State, figures: Mapping[str, float]) -> None:
        """Copies a state to the host and begins to write it, once what came before is written.

        Raises:
          UserError: a parameter is not finite, or the checkpoint before could not be written.
        """
        if self.better(figures):
            self._held = None  # the best no more
        self.wait()
        if int(state.step) != self.step or figures:
            self._submit(self._copied(state, figures))

    def hold(self, state: State, figures: Mapping[str, float]) -> None:
        """Copies the best state so far, to be written when BEST_SECONDS have passed.

        Raises:
          UserError: a parameter is not finite.
        """
        self._held = self._copied(state, figures)

    def wait(self) -> None:
        """Waits until what was begun or held is on the disk.

        Raises:
          UserError: it could not be written.
        """
        while self._future is not None or self._held is not None:
            if self._future is None:
                self._submit(self._held)
            future, self._future = self._future, None
            if future is not None:
                future.result()

    def poll(self) -> None:
        """Raises what went wrong in the background, and begins what is held, without waiting."""
        if self._future is not None and self._future.done():
            future, self._future = self._future, None
            future.result()
        ready = time.monotonic() - self._begun >= BEST_SECONDS
        if self._held is not None and self._future is None and ready:
            self._submit(self._held)

    def _copied(self, state: State, figures: Mapping[str, float]) -> Copy:
        leaves, step = host_leaves(state), int(state.step)
        _check_finite(step, leaves)
        if self.better(figures):
            self._best_value = figures[str(self._best)]
        return step, leaves, figures

    def _submit(self, copy: Copy | None) -> None:
        self._held = None
        if copy is None:
            return
        self.step, self._begun = copy[0], time.monotonic()
        if self._writes:
            self._future = self._pool.submit(self._write, *copy)

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
