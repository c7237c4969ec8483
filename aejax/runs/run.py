"""Run: writes the folder of a training run, from which a killed run can resume.

    with Run("runs/digits", config) as run:
        state = run.restore(learner.init(key, batches[0]))       # resumes where the run stopped
        for state, metrics in loop(learner, state, batches, steps=config.steps):
            run.log(state, metrics)
            run.save(state)                    # writes a checkpoint every 10 seconds
        run.finish({"elbo": -90.1}, state)

If a run is killed and started again with the same command, its final parameters are bitwise equal
to those of a run that was never killed. If a finished run is started again, `run.result` is set,
and the run does not train further. The folder contains config.json, environment.json,
metrics.jsonl, checkpoints/ and, when the run has finished, result.json.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from aejax.errors import UserError
from aejax.files import as_json
from aejax.runs import checkpoint, manifest
from aejax.runs.config import compare, describe, with_state
from aejax.runs.folder import CHECKPOINTS, RunFolder
from aejax.runs.leaves import fill, kinds, misfit, params_sha256
from aejax.runs.loggers import Logger
from aejax.runs.metrics import NAME, MetricsFile, read
from aejax.runs.profile import Trace
from aejax.runs.signals import Stop, command
from aejax.runs.writer import Writer
from aejax.training.loop import EPOCH, NonFinite
from aejax.types import Objective, State


class Run:
    """The folder of a training run, locked by this process for the duration of the `with` block.

    Args:
      folder: the run's folder, which is created if it does not exist.
      config: a dataclass or mapping of numbers and strings. When a run is started again, its field
        `steps`, if there is one, may be larger than before; all other fields must be the same.
      experiment: the name of the experiment, by which later commands find its code.
      model: the model, which is recorded in config.json so that `aejax.load` can rebuild it.
        Without it, `load` needs the model as an argument. If settings are given, a function that
        returns the model of one setting.
      objective: the loss, whose names and weights are recorded and compared at each start.
      settings: the settings of `aejax.swept`, a pytree with leaves [S]. They are recorded in
        config.json so that `aejax.load` can rebuild the model of each setting.
      best: the name of a validation result; the checkpoint in which it is smallest is kept.
      checkpoint_seconds: the time between two checkpoints, in seconds.
      keep: how many of the newest checkpoints to keep.
      log_every: the number of steps between two lines of metrics.jsonl.
      may_change: fields of config whose change causes a warning instead of an error.
      loggers: functions (step, {name: value}) that receive the lines of metrics.jsonl, such as
        those of `aejax.runs.loggers`.
      profile: whether to write a jax.profiler trace of three calls of the step to `profile/`.

    Raises:
      UserError: on entering, if the folder belongs to another run or contains something else, is
        locked by another process, or cannot be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        config: Any,
        *,
        experiment: str | None = None,
        model: Any = None,
        objective: Objective | None = None,
        settings: Any = None,
        best: str | None = None,
        checkpoint_seconds: float = 10.0,
        keep: int = 3,
        log_every: int = 1,
        may_change: Sequence[str] = (),
        loggers: Sequence[Logger] = (),
        profile: bool = False,
    ):
        self.folder = pathlib.Path(folder)
        self.result: dict[str, Any] | None = None  # the result, once the run has finished
        self._record = describe(config, experiment, model, objective, settings)
        self._steps = self._record["config"].get("steps")
        self._best, self._seconds, self._keep = best, checkpoint_seconds, keep
        self._every, self._may_change = log_every, may_change
        self._loggers = loggers
        self._writes = jax.process_index() == 0  # only one of several processes writes files
        self._metrics = MetricsFile(self.folder / NAME)
        self._trace = Trace(self.folder / "profile", profile and self._writes)
        self._nothing_logged = True  # whether no metrics have been logged since this start
        self._stop = Stop()
        self._state: State | None = None
        self._failed: UserError | None = None  # an error of process 0, which `save` raises
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
            self._cleanup = stack.pop_all()
        return self

    def restore(self, state: State) -> State:
        """Returns the state of the newest undamaged checkpoint, or `state` if there is none.

        Args:
          state: the result of `learner.init`; the restored state has its structure, devices and
            implementation of random keys.

        Raises:
          UserError: if all checkpoints are damaged, or if the config or the state's arrays differ
            from those recorded in the folder; no file is changed then.
        """
        record = with_state(self._record, state)
        if self._writes:
            self._files.check(record)
        found = self._newest()
        if found is not None:
            difference = misfit(kinds(state), {p: leaf.kind() for p, leaf in found.leaves.items()})
            if difference is not None:
                raise UserError(
                    f"{self._checkpoints / str(found.step)} does not fit the code: {difference}; "
                    "use the code that wrote the checkpoint, or choose another folder"
                )
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
        self._stop.polled = self._steps is None or step < self._steps
        return state

    def log(
        self, state: State, metrics: Mapping[str, Any], figures: Mapping[str, Any] | None = None
    ) -> None:
        """Appends to metrics.jsonl a line for each training step since the last call of `log`.

        Args:
          state: the state that `loop` yielded.
          metrics: the metrics that `loop` yielded: name -> f32[n] or f32[S, n].
          figures: validation results of this state: name -> a number, f32[S] or f32[S, L]. They are
            written to the line of the last step.

        Raises:
          UserError: if the disk is full, or if the names of the metrics have changed.
        """
        self._trace.chunk()
        if not self._writes:
            return
        if self._nothing_logged:
            record = {**self._files.record, "metrics": sorted(set(metrics) - {EPOCH})}
            compare(self._files.record, record)
            self._files.update(record)
            self._nothing_logged = False
        count = np.shape(next(iter(metrics.values())))[-1]
        first = int(state.step) - count
        with self._in_turn():
            self._metrics.append(first, metrics, self._every, figures, self._loggers)

    def figures(self, name: str) -> np.ndarray:
        """Returns all values of a validation result that `log` has written, f64[n, ...].

        In a resumed run these include the values from before the restored step.
        """
        column = read(self.folder).get(name) if (self.folder / NAME).exists() else None
        if column is None:
            return np.zeros((0,))
        return column[~np.isnan(column.reshape((len(column), -1))).all(axis=1)]

    def save(self, state: State, figures: Mapping[str, Any] | None = None) -> None:
        """Writes a checkpoint in the background if one is due, and exits if a signal has arrived.

        A checkpoint is due when `checkpoint_seconds` have passed since the last one, at the last
        step, and after SIGTERM or SIGINT. A state with the smallest validation result `best` so far
        is also written, but not within two seconds of the last checkpoint.

        Args:
          state: the state that `loop` yielded.
          figures: name -> validation result of this state, a number or f32[S]; the results of two
            states are compared by their means over S.

        Raises:
          UserError: in all processes if the disk is full or a parameter is not finite.
          SystemExit: after a signal, with status 143 or 130.
        """
        self._state = state
        means = {name: float(np.mean(value)) for name, value in (figures or {}).items()}
        ended = self._steps is not None and int(state.step) >= self._steps
        with self._in_turn():
            self._writer.poll()
            if ended or self._stop.received:
                self._writer.wait()
        wanted = ended or self._writer.due(self._seconds)
        failed = self._failed is not None
        due, stop, failed = _agreed(wanted, self._stop.received or 0, failed)
        if failed:
            raise self._failed or UserError(
                f"process 0 could not write {self.folder}, so all processes stop: it says why"
            )
        if due or stop:
            self._writer.start(state, means)
        elif self._writer.better(means):
            self._writer.hold(state, means)
            self._writer.poll()
        if ended or stop:
            self._writer.wait()
            self._stop.polled = False
        if stop:
            self._stop.received = stop
            raise SystemExit(self._stop.status)

    def environment(self, **facts: Any) -> None:
        """Adds entries to environment.json, such as data="..." for a hash of the data."""
        self._files.add_facts(**facts)

    def finish(self, result: Mapping[str, Any], state: State | None = None) -> dict[str, Any]:
        """Writes result.json, which marks the run as finished: a later start does not train.

        Args:
          result: the run's results by name: numbers, strings, arrays, lists and mappings.
          state: the final state; it is saved, and its params_sha256 is added to the result. None:
            the newest checkpoint is that of the final state.

        Returns:
          The content of result.json. It is also the value of `run.result`, both now and when the
          run is started again.
        """
        self._stop.polled = True
        whole = as_json(result) | {"steps": self._steps}
        if state is not None:
            whole |= {"steps": int(state.step), "params_sha256": params_sha256(state.params)}
            self._writer.start(state, {})
        self._writer.wait()
        if state is None and self._writes:
            # A later start believes only a result with the hash of the newest checkpoint.
            proof = checkpoint.newest_params_sha256(self._checkpoints)
            whole |= {} if proof is None else {"params_sha256": proof}
        self._files.write_result(whole)
        self.result = whole
        self._stop.polled = False
        return whole

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        self._stop.polled = True
        with self._cleanup:
            if error is None and self._state is not None and not _donated(self._state):
                self._writer.start(self._state, {})
            self._writer.wait()
            if isinstance(error, NonFinite):
                kept = manifest.steps(self._checkpoints)
                last = f"is {self._checkpoints / str(kept[0])}" if kept else "is not there yet"
                error.args = (f"{error}; the last good checkpoint {last}",)
            if self._stop.received is not None and self._writes:
                print(f"stopped; this goes on: {command()}", flush=True)

    @contextlib.contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Keeps a UserError for the next `save` if there are several processes.

        Only process 0 writes. If it ended at once, the others would wait for it in the next step.
        """
        try:
            yield
        except UserError as error:
            if jax.process_count() == 1:
                raise
            self._failed = error

    def _newest(self) -> checkpoint.Checkpoint | None:
        """Returns the newest undamaged checkpoint, which process 0 chooses for all processes."""
        found = checkpoint.newest(self._checkpoints) if self._writes else None
        if jax.process_count() == 1:
            return found
        mine = np.int32(-1 if found is None else found.step)
        step = int(multihost_utils.broadcast_one_to_all(mine))
        if step < 0 or found is not None:
            return found
        return checkpoint.newest(self._checkpoints, step=step)


def _agreed(due: bool, stop: int, failed: bool) -> tuple[bool, int, bool]:
    """Returns whether any process has `due` or `failed`, and the largest `stop` of all processes.

    All processes must make the same decision, because all of them take part in gathering the state.
    """
    if jax.process_count() == 1:
        return due, stop, failed
    votes = multihost_utils.process_allgather(np.array([due, stop, failed], np.int32))
    return bool(votes[:, 0].any()), int(votes[:, 1].max()), bool(votes[:, 2].any())


def _donated(state: State) -> bool:
    return any(isinstance(x, jax.Array) and x.is_deleted() for x in jax.tree.leaves(state))
