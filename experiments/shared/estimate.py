"""Estimates the minutes of training that the rows of a published table need on this machine.

XLA counts the floating-point operations of a step without compiling it. One step is compiled and
timed, and the others are assumed to run at the same number of operations per second.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import aejax as ae
from aejax.runs.metrics import NAME, read
from aejax.types import Batch
from experiments.shared.experiment import by_name
from experiments.shared.published import Task
from experiments.shared.training import speed

EVENT = (28, 28, 1)  # the shape of the images of all rows
TIMED = 2.0  # seconds for which a step is timed


def minutes_left(tasks: Sequence[Task]) -> dict[str, float]:
    """Returns name of a task -> the estimated minutes of training that are left."""
    known = {task.name: _measured(task) for task in tasks}
    others = [task for task in tasks if math.isnan(known[task.name])]
    work = {task.name: operations(task) for task in others}
    rate = _rate(min(others, key=lambda task: work[task.name])) if others else math.nan
    found = {}
    for task in tasks:
        per_second = known[task.name]
        if math.isnan(per_second):
            per_second = rate / work[task.name]
        found[task.name] = (task.settings["steps"] - _taken(task)) / per_second / 60
    return found


def operations(task: Task) -> float:
    """Returns the floating-point operations of one step of all models of a task."""
    learner, state, batch = _shapes(task)
    cost: Any = jax.jit(learner.step).lower(state, batch).cost_analysis()
    return float(cost["flops"]) * task.settings["seeds"]


def _shapes(task: Task) -> tuple[ae.Learner, Any, Any]:
    """Returns the learner of one model, and the shapes of its state and of a batch."""
    experiment = by_name(task.row.experiment)
    assert experiment is not None
    config = experiment.config(**task.settings)
    job = next(iter(experiment.build(config, EVENT).values()))
    learner = ae.learner(job.model, job.objective, job.tx, job.draws, job.bound)
    images: Any = jax.ShapeDtypeStruct((config.batch, *EVENT), jnp.float32)
    batch = Batch(images, images)
    return learner, jax.eval_shape(learner.init, jax.random.key(0), batch), batch


def _rate(task: Task) -> float:
    """Returns the operations per second of a task's step on this machine."""
    learner, _, shapes = _shapes(task)
    batch = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    state = jax.jit(learner.init)(jax.random.key(0), batch)
    step = jax.jit(learner.step)
    state, _ = jax.block_until_ready(step(state, batch))
    begin, steps = time.perf_counter(), 0
    while time.perf_counter() - begin < TIMED:
        state, _ = jax.block_until_ready(step(state, batch))
        steps += 1
    passed = time.perf_counter() - begin
    return operations(task) / task.settings["seeds"] * steps / passed


def _measured(task: Task) -> float:
    """Returns the steps per second of a run that was begun, or NaN."""
    return speed(task.folder) if (task.folder / NAME).exists() else math.nan


def _taken(task: Task) -> int:
    """Returns the number of steps that a run has taken, 0 if it was not begun."""
    if not (task.folder / NAME).exists():
        return 0
    steps = read(task.folder)["step"]
    return int(np.max(steps)) + 1 if len(steps) else 0
