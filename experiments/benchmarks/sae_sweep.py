"""Sweeps of sparse autoencoders in one compiled program, compared with single runs.

    python -m experiments sae-sweep

A sweep trains eight models on the same synthetic tokens, which differ in the number of active
latents (TopK, BatchTopK), the weight of L1, or the seed. The first, the middle and the last model
are compared with a single run of their setting. The largest relative difference of their losses
should be at most 1e-5 after one step, and at most 1e-4 over 200 steps. The learning rate of Adam is
1e-4 for this comparison, because larger rates amplify rounding. The cost of a sweep is the time of
a step of all eight models divided by that of a step of one; eight single runs cost 8. Both are
timed alternately, and each result is the median over rounds. The benchmark takes two minutes on 2
CPU cores, where the eight models are computed one after another. Expect differences below 1e-6, and
costs of 8 or a little less on an otherwise idle machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import aejax as ae
from aejax.data.activations.batches import TokenBatches
from aejax.data.synthetic.synthbench import SynthBench
from aejax.errors import UserError
from aejax.files import write_json
from aejax.runs.environment import environment
from experiments.shared import synth
from experiments.shared.place import Place, prepared, say
from experiments.shared.training import summary

MEMBERS = 8  # the number of models in a sweep
COMPARED = 200  # the number of steps over which losses are compared
# The learning rate of Adam when losses are compared. With larger rates, a rounding error may change
# which latent is the k-th largest, and two runs then differ by 1e-3 within 200 steps.
CAREFUL = 1e-4
Build = Callable[[Any], ae.Learner]


def command(
    out: str = "runs/sae-sweep",
    data_dir: str | None = None,
    size: int = 64,
    latents: int = 512,
    batch: int = 512,
    steps: int = 20,
    rounds: int = 5,
) -> None:
    """Compares each sweep with single runs, times both, and writes result.json.

    Args:
      out: the folder for result.json.
      data_dir: the folder of prepared data sets; by default that of tensorflow-datasets.
      size: the number of dimensions of a token.
      latents: the number of latents of each dictionary.
      batch: the number of tokens in a batch.
      steps: the number of training steps in one timing.
      rounds: how many times each program is timed.
    """
    if latents < 32:
        raise UserError(
            f"--latents is {latents}: give 32 or more, because up to 32 latents are active"
        )
    folder = prepared(out, size=size, batch=batch, steps=steps, rounds=rounds)
    tokens = max(50_000, batch)
    train, _, _ = synth.store(SynthBench(512, size), tokens, Place(data_dir=data_dir))
    batches = TokenBatches(train, batch, seed=0)
    result: dict[str, Any] = {}
    for name, (settings, build) in sweeps(size, latents, max(COMPARED, steps)).items():
        found = {
            **equal(build, settings, batches),
            **cost(build, settings, batches, steps, rounds),
        }
        result[name] = summary({figure: np.array([value]) for figure, value in found.items()})
        say(
            f"{name:<10} loss differs by {found['after_1_step']:.1e} after 1 step, "
            f"{found['over_200_steps']:.1e} over {COMPARED}; 8 models cost "
            f"{found['cost_of_8']:.2f} single runs ({found['solo_ms']:.1f} ms a step)"
        )
        write_json(folder / "result.json", {**result, "environment": environment()})


def sweeps(size: int, latents: int, chunk: int) -> dict[str, tuple[jax.Array, Build]]:
    """Returns the sweeps by name: settings f[8], and a function from a setting to an `ae.Learner`.

    A Learner is the record of pure functions that train a model.
    """
    active = jnp.asarray([2, 4, 6, 8, 12, 16, 24, 32])

    def one(code: Any, objective: ae.Objective) -> ae.Learner:
        scale = ae.nets.Scale
        model = ae.Autoencoder(scale(), code, ae.nets.Dictionary(size, scale=scale()))
        start = (ae.standardised(), ae.tied)
        return ae.chunked(
            ae.learner(model, objective, optax.adam(CAREFUL), initialise=start), chunk
        )

    revived = ae.sparse(auxk=1 / 32)
    return {
        "topk": (active, lambda k: one(ae.TopK(latents, 32, active=k), revived)),  # pyright: ignore[reportCallIssue]
        "batchtopk": (active, lambda k: one(ae.BatchTopK(latents, k, 32), revived)),  # pyright: ignore[reportCallIssue]
        "l1": (jnp.geomspace(0.1, 10.0, MEMBERS), lambda l1: one(ae.ReLU(latents), ae.sparse(l1))),
        "seed": (jnp.zeros(MEMBERS), lambda _: one(ae.TopK(latents, 16), revived)),  # pyright: ignore[reportCallIssue]
    }


def equal(build: Build, settings: Any, batches: TokenBatches) -> dict[str, float]:
    """Returns the largest relative differences between losses in a sweep and in single runs.

    Only the first, the middle and the last model are compared, since each single run has to be
    compiled.
    """
    together = _losses(ae.swept(build, settings), jax.random.key(0), batches)
    first, over = 0.0, 0.0
    for i in (0, MEMBERS // 2, MEMBERS - 1):
        # Model i of the sweep starts from the key of seed i.
        solo = _losses(build(settings[i]), jax.random.key(i), batches)
        apart = np.abs(together[i] / solo - 1.0)
        first, over = max(first, float(apart[0])), max(over, float(apart.max()))
    return {"after_1_step": first, "over_200_steps": over}


def _losses(learner: ae.Learner, key: Any, batches: TokenBatches) -> np.ndarray:
    """Trains for COMPARED steps and returns the losses, f32[T], or f32[S, T] for a sweep."""
    made = ae.compiled(learner)
    state = made.init(key, batches[0])
    found = [m["loss"] for _, m in ae.loop(made, state, batches, COMPARED, progress=False)]
    return np.concatenate(found, axis=-1)


def cost(
    build: Build, settings: Any, batches: TokenBatches, steps: int, rounds: int
) -> dict[str, Any]:
    """Returns the time of a step of one model, and of eight in one program, in milliseconds.

    The ratio of the two times is returned too. The two programs are timed alternately.
    """
    programs = {"solo": build(settings[-1]), "swept": ae.swept(build, settings)}
    turns = {name: _turn(learner, batches, steps) for name, learner in programs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            seconds[name].append(turn())
    medians = {name: 1e3 * statistics.median(all) / steps for name, all in seconds.items()}
    return {
        "solo_ms": medians["solo"],
        "swept_ms": medians["swept"],
        "cost_of_8": statistics.median(
            b / a for a, b in zip(seconds["solo"], seconds["swept"], strict=True)
        ),
    }


def _turn(learner: ae.Learner, batches: TokenBatches, steps: int) -> Callable[[], float]:
    """Returns a function that trains for `steps` more steps and returns the seconds it took."""
    made = ae.compiled(learner)
    state = made.init(jax.random.key(0), batches[0])
    source = batches.source(0, made.chunk or 1, steps)
    state, _ = made.step(state, source)
    jax.block_until_ready(state.params)

    def turn() -> float:
        nonlocal state
        start = time.perf_counter()
        state, _ = made.step(state, source)
        jax.block_until_ready(state.params)
        return time.perf_counter() - start

    return turn
