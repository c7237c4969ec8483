"""Run: a folder that holds one training run, written so that a kill at any moment loses little.

    with Run("runs/digits", config) as run:
        state = run.restore(learner.init(key, batches[0]))       # goes on where it was
        for state, metrics in loop(learner, state, batches, steps=config.steps):
            run.log(state, metrics)
            run.save(state)                                      # when the clock says so
        run.finish({"elbo": -90.1}, state)

Started again with the same command, a killed run ends in the same bits as one never killed, and a
finished one (`run.result`) trains nothing. The folder holds config.json, environment.json,
metrics.jsonl, checkpoints/ and, in the end, result.json.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from aejax.errors import UserError
from aejax.files import plain
from aejax.runs import checkpoint, manifest
from aejax.runs.config import compare, describe, with_state
from aejax.runs.folder import CHECKPOINTS, RunFolder
from aejax.runs.leaves import fill, kinds, misfit, params_sha256
from aejax.runs.metrics import NAME, MetricsFile
from aejax.runs.profile import Trace
from aejax.runs.signals import Stop, command
from aejax.runs.writer import Writer
from aejax.training.loop import NonFinite
from aejax.types import Objective, State


class Run:
    """A run's folder, held by this process from `with` to the end of the block.

    Args:
      folder: made if need be; one that holds something else is refused.
      config: a dataclass or mapping of numbers and strings; its field `steps`, where there is one,
        may grow from start to start, any other must stay.
      experiment: a name, so that commands on the folder find the code again.
      model: what `aejax.load` makes again; left out, it has to be given to `load`.
      objective: its names and weights are recorded and compared.
      best: a validation figure; the checkpoint where it is smallest is kept.
      checkpoint_seconds: between two checkpoints.
      keep: how many of the newest checkpoints stay.
      log_every: steps from one line of metrics.jsonl to the next.
      may_change: fields of config whose change is a warning: paths, device counts, precision.
      profile: writes a jax.profiler trace of three chunks to `profile/`.

    Raises:
      UserError: on entering, if the folder is another run's, is written by another process or
        cannot be written; elsewhere as documented.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        config: Any,
        *,
        experiment: str | None = None,
        model: Any = None,
        objective: Objective | None = None,
        best: str | None = None,
        checkpoint_seconds: float = 10.0,
        keep: int = 3,
        log_every: int = 1,
        may_change: Sequence[str] = (),
        profile: bool = False,
    ):
        self.folder = pathlib.Path(folder)
        self.result: dict[str, Any] | None = None  # of a run that had finished before this start
        self._record = describe(config, experiment, model, objective)
        self._steps = self._record["config"].get("steps")
        self._best, self._seconds, self._keep = best, checkpoint_seconds, keep
        self._every, self._may_change = log_every, may_change
        self._writes = jax.process_index() == 0  # of several processes, one
        self._metrics = MetricsFile(self.folder / NAME)
        self._trace = Trace(self.folder / "profile", profile and self._writes)
        self._first = True  # no chunk was logged since this start
        self._stop = Stop()
        self._state: State | None = None
        self._checkpoints = self.folder / CHECKPOINTS

    def __enter__(self) -> Run:
        with contextlib.ExitStack() as stack:
            self._files = RunFolder(self.folder, self._record, self._may_change, self._writes)
            stack.enter_context(self._files.held())
            self.result = self._files.result()
            stack.callback(self._metrics.close)
            self._writer = Writer(
                self._checkpoints, self._keep, self._best, self._metrics.sync, self._writes
            )
            stack.callback(self._writer.close)
            stack.callback(self._trace.close)
            self._stop.install()
            stack.callback(self._stop.restore)
            self._held = stack.pop_all()
        return self

    def restore(self, state: State) -> State:
        """Gives back the state of the newest whole checkpoint, or this one where there is none.

        Args:
          state: of `learner.init`: its tree, devices and key implementation are the template.

        Raises:
          UserError: no checkpoint is whole, or the code no longer fits what the folder holds;
            nothing was touched.
        """
        record = with_state(self._record, state)
        if self._writes:
            self._files.check(record)
        found = self._newest()
        if found is not None:
            difference = misfit(kinds(state), {p: leaf.kind() for p, leaf in found.leaves.items()})
            if difference is not None:
                raise UserError(f"{self._checkpoints / str(found.step)} does not fit: {difference}")
            state = fill(state, found.leaves)
        step = 0 if found is None else found.step
        self._files.update(record)
        self._files.write_environment()
        if self._writes:
            manifest.set_aside(self._checkpoints, step)
            self._metrics.resume(step)
            if self._files.resumed:
                print(f"restored step {step} of {self.folder}", flush=True)
        self._writer.resume(None if found is None else step)
        self._stop.patient = self._steps is None or step < self._steps
        return state

    def log(
        self, state: State, metrics: Mapping[str, Any], figures: Mapping[str, Any] | None = None
    ) -> None:
        """Appends a line to metrics.jsonl for each step that ends at `state.step`.

        Args:
          state: as yielded by `loop`.
          metrics: name -> f32[n] or f32[S, n], as yielded by `loop`.
          figures: name -> number, f32[S] or f32[S, L], measured now: they stand in the last step's
            line.

        Raises:
          UserError: the disk is full, or the metrics are not those that were logged so far.
        """
        self._trace.chunk()
        if not self._writes:
            return
        if self._first:
            record = {**self._files.record, "metrics": sorted(metrics)}
            compare(self._files.record, record)
            self._files.update(record)
            self._first = False
        count = np.shape(next(iter(metrics.values())))[-1]
        self._metrics.append(int(state.step) - count, metrics, self._every, figures)

    def save(self, state: State, figures: Mapping[str, Any] | None = None) -> None:
        """Writes a checkpoint in the background if it is time, and stops here after a signal.

        It is time when `checkpoint_seconds` have passed, at the last step, and after SIGTERM or
        SIGINT. The state where the figure `best` is the smallest so far is written as soon as the
        one before is two seconds old.

        Args:
          state: as yielded by `loop`.
          figures: validation figures of this state, numbers or f32[S] (their mean counts).

        Raises:
          UserError: the disk is full, or a parameter is no number.
          SystemExit: after a signal, with status 143 or 130.
        """
        self._state = state
        self._writer.poll()
        means = {name: float(np.mean(value)) for name, value in (figures or {}).items()}
        ended = self._steps is not None and int(state.step) >= self._steps
        wanted = ended or self._writer.due(self._seconds)
        due, stop = _agreed(wanted, self._stop.received or 0)
        if due or stop:
            self._writer.start(state, means)
        elif self._writer.better(means):
            self._writer.hold(state, means)
            self._writer.poll()
        if ended or stop:
            self._writer.wait()
            self._stop.patient = False
        if stop:
            self._stop.received = stop
            raise SystemExit(self._stop.status)

    def environment(self, **facts: Any) -> None:
        """Adds facts to environment.json: the data's content hash, the key of test binarisation."""
        self._files.add_facts(**facts)

    def finish(self, result: Mapping[str, Any], state: State | None = None) -> dict[str, Any]:
        """Writes result.json, after which the same command trains nothing.

        Args:
          result: figures: numbers, text, arrays, and lists and mappings of these.
          state: the final one; it is saved, and its params_sha256 joins the result.

        Returns:
          What was written, which is `run.result` from now on and at the next start.
        """
        self._stop.patient = True
        whole = plain(result) | {"steps": self._steps}
        if state is not None:
            whole |= {"steps": int(state.step), "params_sha256": params_sha256(state.params)}
            self._writer.start(state, {})
        self._writer.wait()
        self._files.write_result(whole)
        self.result = whole
        self._stop.patient = False
        return whole

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        self._stop.patient = True
        with self._held:
            if error is None and self._state is not None and not _donated(self._state):
                self._writer.start(self._state, {})
            self._writer.wait()
            if isinstance(error, NonFinite):
                kept = manifest.steps(self._checkpoints)
                last = f"is {self._checkpoints / str(kept[0])}" if kept else "is not there yet"
                error.args = (f"{error}; the last good checkpoint {last}",)
            if self._stop.received is not None and self._writes:
                print(f"stopped; this goes on: {command()}", flush=True)

    def _newest(self) -> checkpoint.Checkpoint | None:
        """Process 0 says which checkpoint is the newest whole one, and every process reads it."""
        found = checkpoint.newest(self._checkpoints) if self._writes else None
        if jax.process_count() == 1:
            return found
        mine = np.int32(-1 if found is None else found.step)
        step = int(multihost_utils.broadcast_one_to_all(mine))
        if step < 0 or found is not None:
            return found
        return checkpoint.newest(self._checkpoints, step=step)


def _agreed(due: bool, stop: int) -> tuple[bool, int]:
    """What any process wants, in every process: gathering a state takes all of them."""
    if jax.process_count() == 1:
        return due, stop
    votes = multihost_utils.process_allgather(np.array([int(due), stop], np.int32))
    return bool(votes[:, 0].any()), int(votes[:, 1].max())


def _donated(state: State) -> bool:
    return any(isinstance(x, jax.Array) and x.is_deleted() for x in jax.tree.leaves(state))
