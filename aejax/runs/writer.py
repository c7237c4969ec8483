"""The background writer of checkpoints: training continues while a checkpoint is written."""

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
# The shortest time between a checkpoint and the next one that is only written because it is the
# best so far.
BEST_SECONDS = 2.0


class Writer:
    """Writes one checkpoint at a time in a thread; the next method call raises the thread's errors.

    Args:
      folder: the run's `checkpoints` folder.
      keep: how many of the newest checkpoints to keep.
      best: the name of a validation result; the checkpoint with its smallest value is kept too.
      before_commit: a function that the thread calls just before a checkpoint gets its final name.
      writes: whether this process writes files; other processes only take part in gathering the
        state.
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
        self._held: Copy | None = None  # the best state, which waits until BEST_SECONDS have passed
        self.step: int | None = None  # the step of the newest checkpoint, written or being written

    def resume(self, step: int | None) -> None:
        """Starts the timer by which `due` decides when the next checkpoint is written.

        Args:
          step: the step of the restored checkpoint; None if no checkpoint was restored.
        """
        self.step, self._begun = step, time.monotonic()
        found = manifest.best_figure(self._folder, self._best) if self._best else None
        self._best_value = None if found is None else found[1]

    def due(self, seconds: float) -> bool:
        """Returns whether this process should write a checkpoint now.

        It should if the process writes files, no checkpoint is being written, and the last write
        began at least `seconds` ago.
        """
        idle = self._future is None or self._future.done()
        return self._writes and idle and time.monotonic() - self._begun >= seconds

    def better(self, figures: Mapping[str, float]) -> bool:
        """Returns whether the validation result `best` in `figures` is the smallest so far."""
        value = figures.get(self._best or "")
        return value is not None and (self._best_value is None or value < self._best_value)

    def start(self, state: State, figures: Mapping[str, float]) -> None:
        """Waits for the last write, then copies a state to the host and starts to write it.

        Raises:
          UserError: if a parameter is not finite, or if the last checkpoint could not be written.
        """
        if self.better(figures):
            self._held = None  # the held state is no longer the best
        self.wait()
        if int(state.step) != self.step or figures:
            self._submit(self._copied(state, figures))

    def hold(self, state: State, figures: Mapping[str, float]) -> None:
        """Copies the best state so far; it is written BEST_SECONDS after the last checkpoint.

        Raises:
          UserError: if a parameter is not finite.
        """
        self._held = self._copied(state, figures)

    def wait(self) -> None:
        """Waits until all states that were started or held are on the disk.

        Raises:
          UserError: if a state could not be written.
        """
        while self._future is not None or self._held is not None:
            if self._future is None:
                self._submit(self._held)
            future, self._future = self._future, None
            if future is not None:
                future.result()

    def poll(self) -> None:
        """Raises any error of the background thread, and writes a held state if it is due."""
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
        """Waits for the last write and ends the background thread."""
        self._pool.shutdown()

    def _write(self, step: int, leaves: Mapping[str, Leaf], figures: Mapping[str, float]) -> None:
        checkpoint.write(self._folder, step, leaves, figures, self._before_commit)
        manifest.prune(self._folder, self._keep, self._best)


def _check_finite(step: int, leaves: Mapping[str, Leaf]) -> None:
    """Raises UserError if a parameter is not finite, so that no good checkpoint is replaced."""
    for path, leaf in leaves.items():
        if not path.startswith("params/") or not jnp.issubdtype(leaf.array.dtype, jnp.inexact):
            continue
        if not np.isfinite(leaf.array).all():
            raise UserError(
                f"{path} holds NaN or infinity after step {step - 1}, so this state was not saved: "
                "lower the learning rate or warm it up"
            )
