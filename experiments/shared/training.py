"""What every experiment does with a model: make a learner of it, train it in a folder, sum up."""

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
from aejax.data.activations.tokens import Tokens
from aejax.errors import UserError
from aejax.runs.metrics import read
from aejax.types import Array, Variables

HELD_OUT = 2_000  # validation examples that are looked at while training
HELD_OUT_SEED = 7


@dataclasses.dataclass(frozen=True)
class Numbers:
    """The numbers that every experiment has; each adds its own."""

    seed: int = 0  # of the first member; the others count up
    seeds: int = 1  # members trained side by side in one program
    steps: int = 5_000  # of the optimiser; more than before continues a finished run
    batch: int = 100  # examples a step
    chunk: int = 500  # steps a call
    log_every: int = 10  # steps from one line of metrics.jsonl to the next


class Part(NamedTuple):
    """One model of an experiment, and how it is trained."""

    model: ae.Autoencoder
    objective: ae.Objective
    tx: optax.GradientTransformation
    draws: int = 1
    bound: ae.Bound = ae.bounds.mean
    initialise: Any = ()
    average: float | None = None  # decay of the averaged weights that are evaluated
    # Of the train split: what `initialise` needs to know of the data, applied after it.
    start: Callable[[Split], ae.initialise.Initialise] | None = None
    steps: int | None = None  # of the optimiser, where not the config's; not of the first part
    view: Callable[[Split], Split] = lambda split: split  # what the part sees of train, validation
    # A setting -> the part that it makes: then all settings, each with all seeds, are trained side
    # by side on one stream of batches (aejax.swept), setting by setting; the first makes this part.
    sweep: Callable[[Any], Part] | None = None
    settings: tuple[float, ...] = ()


class Trained(NamedTuple):
    """A part after its last step."""

    part: Part
    state: ae.State
    variables: Variables  # leaves lead with S
    seeds: int  # S; in a sweep settings times seeds
    steps_per_second: float  # of `speed`


def check(config: Any, *positive: str) -> None:
    """Refuses numbers below 1, by their flag.

    Args:
      config: the experiment's numbers.
      *positive: fields of its own, beside seeds, steps, batch and chunk.

    Raises:
      UserError: naming the flag.
    """
    if config.seed < 0:
        raise UserError(f"--seed is {config.seed}: give 0 or more")
    for name in ("seeds", "steps", "batch", "chunk", "log_every", *positive):
        if getattr(config, name) < 1:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} is {getattr(config, name)}: give 1 or more")


def learner(part: Part, config: Numbers) -> ae.Learner:
    """The part's learner, all members side by side and a chunk of steps a call, not compiled."""

    def one(part: Part) -> ae.Learner:
        single = ae.learner(
            part.model, part.objective, part.tx, part.draws, part.bound, part.initialise
        )
        if part.average is not None:
            single = ae.averaged(single, part.average)
        return ae.chunked(single, config.chunk)

    if part.sweep is None:
        return ae.seeds(one(part), config.seeds)
    sweep = part.sweep
    settings = jnp.repeat(jnp.asarray(part.settings, jnp.float32), config.seeds)
    return ae.swept(lambda setting: one(sweep(setting)), settings)


def streams(part: Part, config: Numbers, split: Split) -> Batches:
    """The batches of each seed, or the one stream of a sweep; of a store's tokens in two levels."""
    stored = any(isinstance(array, Tokens) for array in split.arrays.values())
    kind = TokenBatches if stored else Batches
    seeds = config.seeds if part.sweep is None else None
    return kind(split, config.batch, seed=config.seed, seeds=seeds)


def train(
    run: ae.Run,
    part: Part,
    config: Numbers,
    splits: Sequence[Split],
    mesh: jax.sharding.Mesh | None = None,
    rules: Any = (),
) -> Trained:
    """Trains to `config.steps`, from the newest checkpoint of the run if there is one."""
    seen = [part.view(split) for split in splits[:2]]
    if part.start is not None:
        part = part._replace(initialise=(*_several(part.initialise), part.start(seen[0])))
    compiled = ae.compiled(learner(part, config), mesh, rules)
    batches = streams(part, config, seen[0])
    held_out = watch_held_out(part, compiled, seen[1].take(HELD_OUT), config.steps)
    members = compiled.seeds or 1
    keys = [jax.random.key(config.seed + i % config.seeds) for i in range(members)]
    state = restored = run.restore(compiled.init(jnp.stack(keys), batches[0]))
    if int(restored.step) == 0:
        check_start(part, local(compiled.variables(restored)), seen[0].take(config.batch))
    for state, metrics in ae.loop(compiled, restored, batches, config.steps):
        # Where a call ends depends on the machine, a chunk does not.
        ended = int(state.step) % config.chunk == 0 or int(state.step) == config.steps
        figures = held_out(local(compiled.variables(state))) if ended else {}
        run.log(state, metrics, figures=figures)
        run.save(state, figures={name: float(np.mean(v)) for name, v in figures.items()})
    return Trained(part, state, local(compiled.variables(state)), members, speed(run.folder))


def check_start(part: Part, variables: Variables, examples: Split) -> None:
    """Refuses to train thresholds that could never move.

    Args:
      part: a model with thresholds and a window, or any other, of which nothing is asked.
      variables: those that training starts from, leaves lead with S; the first member is looked at.
      examples: some of those that are trained on.

    Raises:
      UserError: of `aejax.check_window`.
    """
    if isinstance(part.model.bottleneck, Sparse) and part.model.bottleneck.windowed:
        first = jax.tree.map(lambda leaf: leaf[0], variables)
        ae.check_window(part.model, first, next(examples.batches(len(examples))))


def _several(initialise: Any) -> tuple[Any, ...]:
    return (initialise,) if callable(initialise) else tuple(initialise)


def speed(folder: pathlib.Path) -> float:
    """Steps a second, validation and checkpoints included; NaN where one call took them all.

    Read from the times in metrics.jsonl, so that it is there whatever start took the steps. It is
    the median over steps: those of a call that compiles, or that comes after a pause, are few.
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
    """The variables on this process' own devices, where every process evaluates the same."""
    if jax.process_count() == 1:
        return variables
    return jax.tree.map(lambda leaf: multihost_utils.process_allgather(leaf, tiled=True), variables)


def watch_held_out(
    part: Part, learner: ae.Learner, split: Split, final: int
) -> Callable[[Variables], dict[str, np.ndarray]]:
    """Variables [S, ...] -> the loss and each term on held-out data, f32[S], and `usage` there.

    Weights are those of the step `final`: under a warm-up the losses of different steps would not
    be of one kind, and the smallest would be the first.
    """
    batch = next(split.batches(len(split)))
    key = jax.random.key(HELD_OUT_SEED)
    step = jnp.asarray(final, jnp.int32)

    def use(variables: Variables) -> dict[str, Array]:
        own = jax.random.split(key, part.draws)[0]
        return evaluation.usage(part.model.bind(variables), batch, own)

    @jax.jit
    def measured(variables: Variables) -> dict[str, Array]:
        loss = learner.evaluate(variables, batch, key, step)
        return {**loss, **jax.lax.map(use, variables)}

    def figures(variables: Variables) -> dict[str, np.ndarray]:
        values = jax.device_get(measured(variables))
        return {f"validation_{name}": np.asarray(value) for name, value in values.items()}

    return figures


def summary(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """name -> f[S] as {"mean", "std", "values"}; std is the sample's, 0 for one seed."""
    result = {}
    for name, value in values.items():
        each = [float(x) for x in np.atleast_1d(np.asarray(value, np.float64))]
        std = float(np.std(each, ddof=1)) if len(each) > 1 else 0.0
        result[name] = {"mean": float(np.mean(each)), "std": std, "values": each}
    return result


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Figures of `summary` as aligned lines: name, mean, plus or minus."""
    width = max(map(len, rows), default=0)
    lines = []
    for name, row in rows.items():
        seeds = len(row["values"])
        mean, std = float(row["mean"]), float(row["std"])  # NaN stands in JSON as text
        spread = f" ± {std:.3g} over {seeds} seeds" if seeds > 1 else ""
        lines.append(f"  {name:<{width}}  {mean:>12.6g}{spread}")
    return "\n".join(lines)
