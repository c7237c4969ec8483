"""Training of a job, which is one model of an experiment with its objective and optimiser.

This file builds the job's training function, batches and validation function, and summarises the
results of several seeds.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils

import aejax as ae
from aejax import evaluation
from aejax.bottlenecks import Sparse
from aejax.data import Batches, Split
from aejax.data.activations.batches import TokenBatches
from aejax.data.activations.tokens import Selected, Tokens
from aejax.memory import check_memory, size_of
from aejax.runs.metrics import read
from aejax.types import Array, Batch, Variables
from experiments.shared.numbers import Count

HELD_OUT = 2_000  # number of validation examples that are evaluated during training
HELD_OUT_SEED = 7  # seed of the draws in this evaluation


@dataclasses.dataclass(frozen=True)
class Numbers:
    """The settings that every experiment has; each experiment adds its own."""

    seed: int = 0  # seed of the first model; the others have SEED + 1, SEED + 2, ...
    seeds: Count = 1  # number of models with different seeds, trained together in one program
    steps: Count = 5_000  # optimiser steps; a larger number than before continues a finished run
    batch: Count = 100  # examples in a batch
    chunk: Count = 500  # steps in one compiled call
    log_every: Count = 10  # steps between two lines of metrics.jsonl


class Job(NamedTuple):
    """One model that an experiment trains, with a copy for each seed, and how it is trained."""

    model: ae.Autoencoder | Any
    objective: ae.Objective
    tx: optax.GradientTransformation  # the optimiser
    draws: int = 1  # number of codes drawn for each example, K
    bound: ae.Bound = ae.bounds.mean
    initialise: Any = ()  # one or several functions, as in `ae.learner`
    # Decay of the moving average of the weights, which is evaluated; None: there is no average.
    average: float | None = None
    # train split -> a further initialisation that depends on the data; it is applied last.
    start: Callable[[Split], ae.initialise.Initialise] | None = None
    steps: int | None = None  # optimiser steps instead of the config's; not for the first job
    view: Callable[[Split], Split] = lambda split: split  # changes the splits for this job
    # setting -> job. If it is given, the models of all settings and seeds are trained together on
    # the same batches (aejax.swept), and this job is that of the first setting.
    sweep: Callable[[Any], Job] | None = None
    settings: tuple[float, ...] = ()  # the settings of the sweep
    # train split -> the model, if that depends on the data, such as on a vocabulary; `model` is
    # then None until `completed` is called.
    fit: Callable[[Split], ae.Autoencoder] | None = None
    wrap: Callable[[ae.Learner], ae.Learner] = lambda learner: learner  # before `chunked`
    # A job with the same model and optimiser, whose objective, draws and bound hold for the first
    # `first.steps` steps, such as an ELBO with one draw; None: those of this job hold throughout.
    first: Job | None = None


def completed(job: Job, train: Split) -> Job:
    """Returns the job with its model, which may depend on the train split."""
    return job if job.fit is None else job._replace(model=job.fit(train))


class Trained(NamedTuple):
    """A job and its trained models."""

    job: Job
    state: ae.State
    variables: Variables  # leaves [S, ...]
    seeds: int  # the number of models, S; in a sweep the number of settings times that of seeds
    steps_per_second: float  # the result of `speed`


def learner(job: Job, config: Numbers, chunked: bool = True) -> ae.Learner:
    """Returns the job's training function, without jit.

    Each call runs up to `config.chunk` training steps for the models of all seeds, and of all
    settings of a sweep; if `chunked` is False it runs one step, for which it takes a batch.
    """

    def one(job: Job) -> ae.Learner:
        single = ae.learner(job.model, job.objective, job.tx, job.draws, job.bound, job.initialise)
        single = job.wrap(single)
        if job.average is not None:
            single = ae.averaged(single, job.average)
        return ae.chunked(single, config.chunk) if chunked else single

    if job.sweep is None:
        return ae.seeds(one(job), config.seeds)
    sweep = job.sweep
    settings = jnp.repeat(jnp.asarray(job.settings, jnp.float32), config.seeds)
    return ae.swept(lambda setting: one(sweep(setting)), settings)


def streams(job: Job, config: Numbers, split: Split) -> Batches:
    """Returns the train batches, which differ between seeds; in a sweep, all models share them.

    Tokens of an activation store are shuffled in two stages (see `TokenBatches`).
    """
    stored = any(isinstance(array, Tokens | Selected) for array in split.arrays.values())
    kind = TokenBatches if stored else Batches
    seeds = config.seeds if job.sweep is None else None
    return kind(split, config.batch, seed=config.seed, seeds=seeds)


def train(
    run: ae.Run,
    job: Job,
    config: Numbers,
    splits: Sequence[Split],
    mesh: jax.sharding.Mesh | None = None,
    rules: Any = (),
) -> Trained:
    """Trains a job up to step `config.steps`, starting from the run's newest checkpoint, if any.

    Args:
      run: the run, which has been entered by `with`.
      job: the model, and how it is trained.
      config: the settings of the experiment.
      splits: train, validation and test; test is not used.
      mesh: the devices, or None for one device.
      rules: the shardings of parameters over the mesh.
    """
    seen = [job.view(split) for split in splits[:2]]
    check_fits(job, config, seen[0])
    if job.start is not None:
        job = job._replace(initialise=(*_several(job.initialise), job.start(seen[0])))
    compiled = ae.compiled(learner(job, config), mesh, rules)
    parts = [(compiled, config.steps)]
    if job.first is not None and job.first.steps:
        own = ae.compiled(learner(job.first, config), mesh, rules)
        parts.insert(0, (own, min(job.first.steps, config.steps)))
    batches = streams(job, config, seen[0])
    held_out = watch_held_out(job, compiled, seen[1].take(HELD_OUT), config.steps)
    members = compiled.seeds or 1
    keys = [jax.random.key(config.seed + i % config.seeds) for i in range(members)]
    state = run.restore(compiled.init(jnp.stack(keys), batches[0]))
    if int(state.step) == 0:
        check_start(job, local(compiled.variables(state)), seen[0].take(config.batch))
    for own, until in parts:
        begun = state
        for state, metrics in ae.loop(own, begun, batches, until):
            # The number of steps in a call depends on the machine's speed. Validation takes place
            # only after multiples of `chunk` steps, which are the same steps on every machine.
            ended = int(state.step) % config.chunk == 0 or int(state.step) == config.steps
            figures = held_out(local(compiled.variables(state))) if ended else {}
            run.log(state, metrics, figures=figures)
            run.save(state, figures={name: float(np.mean(v)) for name, v in figures.items()})
    return Trained(job, state, local(compiled.variables(state)), members, speed(run.folder))


def check_start(job: Job, variables: Variables, examples: Split) -> None:
    """Checks that enough pre-activations are close to the thresholds of a sparse bottleneck.

    A threshold gets a gradient only from pre-activations in a window around it.

    Args:
      job: the job; only sparse bottlenecks with such a window are checked.
      variables: the initial variables, leaves [S, ...]; only the first model is checked.
      examples: some train examples.

    Raises:
      UserError: if too few pre-activations are in the window (see `aejax.check_window`).
    """
    if isinstance(job.model.bottleneck, Sparse) and job.model.bottleneck.windowed:
        first = jax.tree.map(lambda leaf: leaf[0], variables)
        ae.check_window(job.model, first, next(examples.batches(len(examples))))


def check_fits(job: Job, config: Numbers, split: Split) -> None:
    """Checks that the state of all models and one batch fit in memory, before they are made.

    The check computes only the shapes of one model's state and batch, and multiplies their size by
    the number of models; the models of a sweep share one batch. The result is a lower bound,
    because gradients and intermediate values are not counted.

    Raises:
      UserError: if they do not fit; the message has both figures.
    """
    members = config.seeds * (1 if job.sweep is None else len(job.settings))
    one = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((config.batch, *leaf.shape[1:]), leaf.dtype),
        next(split.take(1).batches(1)),
    )
    single = ae.learner(job.model, job.objective, job.tx, job.draws, job.bound, job.initialise)
    state = jax.eval_shape(single.init, jax.random.key(0), one)
    average = 0 if job.average is None else size_of(state.params)
    examples = size_of(one) if job.sweep is None else size_of(one) / members
    needed = members * int(size_of(state._replace(key=None)) + average + examples)
    what = f"the training of {members} models of {config.batch} examples in a batch"
    check_memory(needed, what, "make the networks smaller, or lower --seeds or --batch")


def _several(initialise: Any) -> tuple[Any, ...]:
    return (initialise,) if callable(initialise) else tuple(initialise)


def speed(folder: pathlib.Path) -> float:
    """Returns training steps per second, including validation; NaN if one call ran all steps.

    The rate is computed from the times in metrics.jsonl, so it includes steps before a restart. It
    is a median over steps, because a call that compiles or that follows a pause is slower.
    """
    found = read(folder)
    times, last = np.unique(found["time"], return_index=True)
    if len(times) < 2:
        return float("nan")
    ends = np.append(last[1:], len(found["step"])) - 1
    steps = np.diff(found["step"][ends])
    rates = steps / np.diff(times)
    order = np.argsort(rates)
    middle = np.searchsorted(np.cumsum(steps[order]), steps.sum() / 2)
    return float(rates[order][middle])


def local(variables: Variables) -> Variables:
    """Copies variables that are divided over processes to this process, which evaluates models."""
    if jax.process_count() == 1:
        return variables
    return jax.tree.map(lambda leaf: multihost_utils.process_allgather(leaf, tiled=True), variables)


def watch_held_out(
    job: Job, learner: ae.Learner, split: Split, final: int
) -> Callable[[Variables], dict[str, np.ndarray]]:
    """Returns the validation function: variables, leaves [S, ...] -> name of a result -> f32[S].

    The results are the loss, its terms and those of `evaluation.usage`. The terms have the weights
    of the step `final`, so that the losses of different steps can be compared: with weights that
    increase during a warm-up, the smallest loss would be that of the first step.
    """
    batch = next(split.batches(len(split)))
    key = jax.random.key(HELD_OUT_SEED)
    step = jnp.asarray(final, jnp.int32)

    # The batch is an argument: XLA would compute whatever depends on a constant alone by its slow
    # interpreter.
    @jax.jit
    def measured(variables: Variables, batch: Batch) -> dict[str, Array]:
        def use(variables: Variables) -> dict[str, Array]:
            own = jax.random.split(key, job.draws)[0]
            return evaluation.usage(job.model.bind(variables), batch, own)

        loss = learner.evaluate(variables, batch, key, step)
        return {**loss, **jax.lax.map(use, variables)}

    def figures(variables: Variables) -> dict[str, np.ndarray]:
        values = jax.device_get(measured(variables, batch))
        return {f"validation_{name}": np.asarray(value) for name, value in values.items()}

    return figures


def summary(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the mean, the standard deviation and the values of each result, as in result.json.

    Args:
      values: name of a result -> its values for S seeds, f[S].

    Returns:
      name of a result -> {"mean": ..., "std": ..., "values": [...]}, where "std" is the sample
      standard deviation, with divisor S - 1; it is 0 for one seed.
    """
    result = {}
    for name, value in values.items():
        each = [float(x) for x in np.atleast_1d(np.asarray(value, np.float64))]
        std = float(np.std(each, ddof=1)) if len(each) > 1 else 0.0
        result[name] = {"mean": float(np.mean(each)), "std": std, "values": each}
    return result


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns results of `summary` as aligned lines of text: name, mean and standard deviation."""
    width = max(map(len, rows), default=0)
    lines = []
    for name, row in rows.items():
        seeds = len(row["values"])
        mean, std = float(row["mean"]), float(row["std"])  # in JSON, NaN is a string
        spread = f" ± {std:.3g} over {seeds} seeds" if seeds > 1 else ""
        lines.append(f"  {name:<{width}}  {mean:>12.6g}{spread}")
    return "\n".join(lines)
