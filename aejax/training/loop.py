"""The training loop: a generator of (state, metrics), one pair a call of the step.

    for state, metrics in loop(learner, state, batches, steps=5_000):
        run.log(state, metrics)
        run.save(state)

A state that was yielded is the caller's until the next pair is asked for: the next step donates
its buffers. Nothing goes to the host inside a call; its metrics are read once, when it ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from aejax.checks import at_least
from aejax.data.batches import Batches
from aejax.data.split import check_support
from aejax.errors import UserError
from aejax.training.progress import Progress
from aejax.types import Learner, Source, State

GRADIENT = "grad_norm"
CALL_SECONDS = 5.0  # of one call
GROWTH = 8  # from one call's steps to the next one's at most: the first few are a poor measure


class NonFinite(UserError):
    """The loss or its gradient stopped being a number; nothing of that chunk was handed out."""

    def __init__(self, step: int, terms: list[str], seed: int | None, figure: str, value: float):
        self.step, self.terms, self.seed = step, terms, seed
        named = [repr(name) for name in terms]
        where = (
            f"{'term' if len(named) == 1 else 'terms'} {', '.join(named)}"
            if named
            else ("every term is finite" if figure == GRADIENT else "no term alone")
        )
        member = "" if seed is None else f", seed {seed}"
        what = "the gradient's norm" if figure == GRADIENT else figure
        word = "NaN" if np.isnan(value) else "infinite"
        super().__init__(
            f"{what} is {word} at step {step} ({where}{member}): lower the learning rate, warm it "
            "up, or look for the cause in that term and its data"
        )


def loop(
    learner: Learner,
    state: State,
    batches: Any,
    steps: int,
    progress: bool | None = None,
) -> Iterator[tuple[State, dict[str, np.ndarray]]]:
    """Trains until `steps` steps have been taken in all, those before a restore included.

    Args:
      learner: with `chunk` T it takes up to T steps a call: 1 at first, then as many as fit into
        CALL_SECONDS; wherever training started, one ends at each multiple of T. Without, one.
      state: where to start; its buffers are donated if the learner is compiled.
      batches: `batches[t]` is a Batch and `batches.source(t, T, limit)` a Source; one stream
        becomes S of them for a learner of S seeds that do not share data.
      steps: the step to stop at.
      progress: whether to draw a bar; by default where stderr is a terminal.

    Returns:
      An iterator of (state, metrics), metrics on the host: f32[n] or f32[S, n] for the n steps
      that end at `state.step`.

    Raises:
      UserError: steps is less than 1, these are no batches, or their seeds are not the learner's.
      NonFinite: while iterating, before the state of such a chunk is yielded.
    """
    at_least(1, "steps", steps)
    if not hasattr(batches, "source" if learner.chunk else "__getitem__"):
        raise UserError(
            f"the loop was given a {type(batches).__name__} in place of batches: give "
            "ae.data.Batches(train, size) of a split"
        )
    if learner.support is not None and isinstance(batches, Batches):
        check_support(batches.split, learner.support)
    return _loop(learner, state, _streams(learner, batches), steps, progress)


def _loop(learner, state, batches, steps, progress):
    done, first_seed = int(state.step), getattr(batches, "seed", 0)
    size, chunk = learner.chunk or 1, None
    pace = _Pace(size)
    with Progress(done, steps, progress) as bar:
        while done < steps:
            start = done - done % size
            if chunk is None or done == start:
                end = min(start + size, steps)
                chunk = batches.source(start, size, end) if learner.chunk else batches[start]
            count = min(pace.count(), start + size - done, steps - done)
            with pace.taking(count):
                state, metrics = learner.step(state, _part(chunk, done - start, count))
                host = _on_host(metrics, learner, done - start, count)
            _check(host, done, first_seed)
            done += count
            bar.move(done, float(np.mean(host["loss"][..., -1])))
            yield state, host


class _Pace:
    """How many steps a call takes, measured: checkpoints and signals wait for its end."""

    def __init__(self, most: int):
        self._next, self._most, self._compiled = 1, most, False

    def count(self) -> int:
        """Of the next call; the same in all processes of a run."""
        if self._most == 1 or jax.process_count() == 1:
            return self._next
        return int(multihost_utils.broadcast_one_to_all(np.int32(self._next)))

    @contextlib.contextmanager
    def taking(self, count: int) -> Iterator[None]:
        """Times a call; the first one compiles, so its time says nothing."""
        begun = time.monotonic()
        yield
        seconds = time.monotonic() - begun
        fitting = int(CALL_SECONDS * count / max(seconds, 1e-9)) if self._compiled else 1
        self._compiled = True
        self._next = max(1, min(fitting, GROWTH * count, self._most))


def _part(chunk: Any, first: int, count: int) -> Any:
    """Some of a chunk's batches."""
    if not isinstance(chunk, Source):
        return chunk
    return dataclasses.replace(chunk, first=jnp.int32(first), count=jnp.int32(count))


def _streams(learner: Learner, batches: Any) -> Any:
    """One stream of batches a member, where members do not share one."""
    if not isinstance(batches, Batches):
        return batches
    wanted = None if learner.shared_data else learner.seeds
    if batches.seeds is None and wanted is not None:
        return dataclasses.replace(batches, seeds=wanted)
    if batches.seeds != wanted:
        raise UserError(
            f"batches with seeds={batches.seeds} do not fit a learner that needs seeds={wanted}; "
            "leave out the batches' seeds"
        )
    return batches


def _on_host(metrics: Any, learner: Learner, first: int, count: int) -> dict[str, np.ndarray]:
    """f32[n] or f32[S, n]; waits for the device."""
    host = jax.device_get(dict(metrics))
    if learner.chunk is None:
        return {name: np.asarray(values)[..., None] for name, values in host.items()}
    return {name: np.asarray(values)[..., first : first + count] for name, values in host.items()}


def _check(metrics: dict[str, np.ndarray], first: int, first_seed: int) -> None:
    """Raises NonFinite for the first bad step; a term that is only watched may be infinite."""
    figures = [name for name in ("loss", GRADIENT) if name in metrics]
    bad = {name: ~np.isfinite(np.atleast_2d(metrics[name])) for name in figures}  # [S, n]
    either = np.any(list(bad.values()), axis=0)
    if not either.any():
        return
    i = int(either.any(axis=0).argmax())
    member = int(either[:, i].argmax())
    figure = next(name for name in figures if bad[name][member, i])
    here = {name: np.atleast_2d(values)[member, i] for name, values in metrics.items()}
    terms = [name for name, value in here.items() if name not in figures and not np.isfinite(value)]
    seed = first_seed + member if metrics["loss"].ndim == 2 else None
    raise NonFinite(first + i, terms, seed, figure, here[figure])
