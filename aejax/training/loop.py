"""The training loop: a generator that yields (state, metrics) after each call of learner.step.

    for state, metrics in loop(learner, state, batches, steps=5_000):
        run.log(state, metrics)
        run.save(state)

A yielded state is valid only until the next pair is requested, because the next call reuses its
buffers. Metrics are copied to the host once, when a call ends. If a sparse autoencoder's number of
active latents (L0) is more than a tenth off its target when the loop ends, the loop warns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from aejax.checks import at_least
from aejax.data.batches import Batches
from aejax.data.split import check_support, check_targets
from aejax.data.stream import Stream
from aejax.errors import UserError
from aejax.training import steering
from aejax.training.gathering import gathered
from aejax.training.progress import Progress
from aejax.types import Batch, Learner, Source, State

GRADIENT = "grad_norm"
EPOCH = "epoch"  # the metric that the loop adds to those of the learner
LARGE = 20.0  # inputs above this size often cause NaN, as initial weights assume inputs near 1
CALL_SECONDS = 5.0  # target duration of one call of the step
# A call does at most 8 times as many steps as the last one, because early timings are unreliable.
GROWTH = 8


class NonFinite(UserError):
    """The error for a loss or gradient norm that is not finite.

    The loop does not yield the state after the call in which this happened.

    Args:
      step: the index of the step.
      terms: the names of the loss terms that are not finite.
      seed: the seed of the model, if several were trained together; None: one model.
      figure: the metric that is not finite, "loss" or "grad_norm".
      value: its value.
      scale: the largest magnitude in x if it is a likely cause, else None.
      missing: the first row of the step's batch in which x is NaN; None: there is none.
    """

    def __init__(
        self,
        step: int,
        terms: list[str],
        seed: int | None,
        figure: str,
        value: float,
        scale: float | None = None,
        missing: int | None = None,
    ):
        self.step, self.terms, self.seed = step, terms, seed
        named = [repr(name) for name in terms]
        where = (
            f"{'term' if len(named) == 1 else 'terms'} {', '.join(named)}"
            if named
            else "every term is finite"
        )
        member = "" if seed is None else f", seed {seed}"
        what = "the gradient's norm" if figure == GRADIENT else figure
        word = "NaN" if np.isnan(value) else "infinite"
        advice = (
            "lower the learning rate, warm it up, or look for the cause in that term and its data"
            if named
            else "lower the learning rate, warm it up, or clip the gradient, for example by "
            "optax.clip_by_global_norm"
        )
        if scale is not None:
            advice = (
                f"x holds numbers up to {scale:.4g}, but a net starts well with values near 1, so "
                "standardise them, for example by nets.Standardised(net, *data.statistics(train))"
            )
        if missing is not None:
            advice = (
                f"row {missing} of x in that step's batch holds NaN, so remove such rows, or mark "
                "NaN as missing by ae.data.arrays, by ae.data.table or, if the rows are read "
                "during training, by the change ae.data.changes.Missing()"
            )
        super().__init__(f"{what} is {word} at step {step} ({where}{member}): {advice}")


def loop(
    learner: Learner,
    state: State,
    batches: Any,
    steps: int | None = None,
    progress: bool | None = None,
    *,
    epochs: float | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[State, dict[str, np.ndarray]]]:
    """Trains until `steps` steps have been taken in total, including those before a restore.

    Args:
      learner: the learner. Each call of its `step` does one training step, unless the learner was
        wrapped by `chunked(learner, T)`. Then the first call does one, and a later call as many as
        fit into CALL_SECONDS, but none goes beyond the next multiple of T.
      state: the state to start from. A compiled learner donates its buffers: do not use this state
        afterwards.
      batches: the data, usually an `ae.data.Batches`. Any object works where `batches[t]` is the
        Batch of training step t and, for a wrapped learner, `batches.source(t, T, limit)` is the
        `Source` of steps t to t + T - 1, of which those before `limit` are trained on. If
        the learner trains S models on different batches, each model gets the data in an order of
        its own.
      steps: the step to stop at; give either this or `epochs`.
      epochs: the number of passes through the data to stop after.
      progress: whether to draw a progress bar; None draws one if stderr is a terminal.
      stop: a function without arguments that is called after each call of the step; training ends
        if it returns True. A `Patience` is such a function.

    Returns:
      An iterator of (state, metrics). The metrics are on the host, f32[n] or f32[S, n] for the n
      steps that end at `state.step`. The learner defines their names. If `batches` has a method
      `epoch`, there is also `epoch` f64[n], the number of passes through the data after each step.

    Raises:
      UserError: if steps < 1, if not just one of steps and epochs is given, if batches has no
        method `source` although the learner is wrapped by `chunked`, or cannot be indexed although
        it is not, if the number of its seeds differs from the learner's, or if a transcoder
        subtracts the output's bias from its input.
      NonFinite: during iteration, if the loss or gradient norm of a step is not finite.
    """
    if (steps is None) == (epochs is None):
        raise UserError(f"steps is {steps} and epochs is {epochs}: give one of the two")
    steps = int(batches.steps(epochs) if steps is None else steps)
    at_least(1, "steps", steps)
    if not hasattr(batches, "source" if learner.chunk else "__getitem__"):
        raise UserError(
            f"the loop got a {type(batches).__name__} as its batches: make them from a split by "
            "ae.data.Batches(train, size)"
        )
    if isinstance(batches, Batches):
        check_support(batches.split, learner.support)
    if learner.subtracts_bias and isinstance(batches, Batches) and batches.split.transcodes:
        raise UserError(
            "the bottleneck subtracts the decoder's bias from its input, but the targets of "
            f"{batches.split.name} are activations at other hooks than its inputs, so this bias "
            "does not suit the inputs: give the bottleneck of a transcoder subtract_bias=False"
        )
    return _loop(learner, state, _streams(learner, batches), steps, progress, stop)


def _loop(learner, state, batches, steps, progress, stop):
    done, first_seed = int(state.step), getattr(batches, "seed", 0)
    size, chunk = learner.chunk or 1, None
    pace, late = _Pace(size), []
    with Progress(done, steps, progress) as bar:
        while done < steps and not stop():
            start = done - done % size
            if chunk is None or done == start:
                end = min(start + size, steps)
                first = chunk is None
                chunk = batches.source(start, size, end) if learner.chunk else batches[start]
                if first and learner.support is not None and isinstance(batches, Stream):
                    check_targets(_batch(chunk, 0), learner.support, " of the stream's first batch")
            count = min(pace.count(), start + size - done, steps - done)
            with pace.taking(count):
                state, metrics = learner.step(state, _limited(chunk, done - start, count))
                host = _on_host(metrics, learner, done - start, count)
            _check(host, done, first_seed, chunk, done - start)
            if hasattr(batches, "epoch"):
                host[EPOCH] = np.array([batches.epoch(done + i + 1) for i in range(count)])
            done += count
            bar.move(done, float(np.mean(host["loss"][..., -1])))
            late = _late(late, host)
            yield state, host
    said = steering.verdict(steering.off(np.concatenate(late))) if late else ""
    if said and done >= steps:
        warnings.warn(said, stacklevel=2)


def _late(late: list[np.ndarray], metrics: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Returns the metric `off_target` of the last TAIL steps or more, one array for each call.

    Args:
      late: what this function returned after the previous call; [] before the first one.
      metrics: the metrics of the call that has just ended.
    """
    if steering.METRIC not in metrics:
        return late
    late = [*late, metrics[steering.METRIC].T]
    while sum(map(len, late[1:])) >= steering.TAIL:
        late = late[1:]
    return late


class _Pace:
    """Chooses the number of training steps of each call from the durations of earlier calls.

    Checkpoints and signals wait for the end of a call, so no call should take long.
    """

    def __init__(self, most: int):
        self._next, self._most, self._compiled = 1, most, False

    def count(self) -> int:
        """Returns how many training steps the next call of `learner.step` does.

        All processes of a run get the same number.
        """
        if self._most == 1 or jax.process_count() == 1:
            return self._next
        return int(multihost_utils.broadcast_one_to_all(np.int32(self._next)))

    @contextlib.contextmanager
    def taking(self, count: int) -> Iterator[None]:
        """Measures the time of one call of `count` steps, which is made inside the `with` block.

        The time of the first call is ignored, because it includes compilation.
        """
        begun = time.monotonic()
        yield
        seconds = time.monotonic() - begun
        fitting = int(CALL_SECONDS * count / max(seconds, 1e-9)) if self._compiled else 1
        self._compiled = True
        self._next = max(1, min(fitting, GROWTH * count, self._most))


def _limited(chunk: Any, first: int, count: int) -> Any:
    """Returns a Source restricted to its batches first to first + count - 1; a Batch unchanged."""
    if not isinstance(chunk, Source):
        return chunk
    return dataclasses.replace(chunk, first=jnp.int32(first), count=jnp.int32(count))


def _streams(learner: Learner, batches: Any) -> Any:
    """Returns the batches, with S streams if the learner's S models do not share their data.

    Raises:
      UserError: if the batches have another number of streams, or are a `Stream`, which has only
        one.
    """
    if isinstance(batches, Stream) and learner.seeds is not None and not learner.shared_data:
        raise UserError(
            "a Stream has one order of its examples, which all seeds see: give ae.seeds(..., "
            "shared_data=True)"
        )
    if not isinstance(batches, Batches):
        return batches
    wanted = None if learner.shared_data else learner.seeds
    if batches.seeds is None and wanted is not None:
        return dataclasses.replace(batches, seeds=wanted)
    if batches.seeds != wanted:
        raise UserError(
            f"the batches have seeds={batches.seeds}, but the learner needs seeds={wanted}: make "
            "the batches without seeds, and the loop sets them"
        )
    return batches


def _on_host(metrics: Any, learner: Learner, first: int, count: int) -> dict[str, np.ndarray]:
    """Waits until a call has ended and copies the metrics of its steps to the host.

    Args:
      metrics: the metrics that the call returned.
      learner: the learner that made the call.
      first: the index, within the metrics, of the call's first step.
      count: the number of steps of the call, n.

    Returns:
      The metrics by name, f32[n] or f32[S, n].
    """
    host = jax.device_get(dict(metrics))
    if learner.chunk is None:
        return {name: np.asarray(values)[..., None] for name, values in host.items()}
    return {name: np.asarray(values)[..., first : first + count] for name, values in host.items()}


def _check(
    metrics: dict[str, np.ndarray], first: int, first_seed: int, data: Any, offset: int
) -> None:
    """Raises NonFinite at the first step whose loss or gradient norm is not finite.

    A term with weight None may be infinite. The error mentions the usual causes: NaN in the batch
    and, at step 0, a large scale of the data. If `data` is a Source, step `first` was trained on
    its batch `offset`.
    """
    checked = [name for name in ("loss", GRADIENT) if name in metrics]
    bad = {name: ~np.isfinite(np.atleast_2d(metrics[name])) for name in checked}  # [S, n]
    either = np.any(list(bad.values()), axis=0)
    if not either.any():
        return
    i = int(either.any(axis=0).argmax())
    member = int(either[:, i].argmax())
    figure = next(name for name in checked if bad[name][member, i])
    here = {name: np.atleast_2d(values)[member, i] for name, values in metrics.items()}
    terms = [name for name, value in here.items() if name not in checked and not np.isfinite(value)]
    seed = first_seed + member if metrics["loss"].ndim == 2 else None
    read = _inputs(_batch(data, offset + i))
    scale = max((float(np.max(np.abs(x), initial=0.0)) for x in read), default=0.0)
    missing = [np.isnan(x).reshape(len(x), -1).any(axis=1) for x in read if x.ndim]
    row = next((int(np.argmax(rows)) for rows in missing if rows.any()), None)
    large = scale if first + i == 0 and scale > LARGE else None
    raise NonFinite(first + i, terms, seed, figure, here[figure], large, row)


def _batch(data: Any, i: int) -> Any:
    """Returns batch i of a Source; returns anything else, such as a Batch, unchanged."""
    return gathered(data, i, jnp.int32(0)) if isinstance(data, Source) else data


def _inputs(batch: Any) -> list[np.ndarray]:
    """Returns the arrays of floats in x of a batch; those of other processes are left out."""
    leaves = jax.tree.leaves(batch.x if isinstance(batch, Batch) else batch)
    here = [leaf for leaf in leaves if getattr(leaf, "is_fully_addressable", True)]
    arrays = [np.asarray(leaf) for leaf in here]
    return [a.astype(np.float32) for a in arrays if jnp.issubdtype(a.dtype, jnp.floating)]
