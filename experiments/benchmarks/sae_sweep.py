"""Many sparse autoencoders in one compiled program: do they equal solo runs, and what do they cost?

    python -m experiments sae-sweep

Eight members on one stream of synthetic tokens, swept over the number of active latents (TopK,
BatchTopK), the price of L1, and the seed. The first, the middle and the last are compared with the
run of their setting alone: the largest relative difference of the losses after one step and over
200 (1e-5 and 1e-4 are asked for; Adam at 1e-4, as larger rates amplify rounding), and the time of a
step of all eight against that of one (8 is what eight solo runs cost). Programs take turns and each
figure is the median of its rounds. Two minutes on 2 CPU cores, where members take turns too: expect
differences below 1e-6 and costs of 8 or a little less on a quiet machine.
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

MEMBERS = 8
COMPARED = 200  # steps over which losses are compared
# Of Adam where losses are compared: at larger ones a latent that rounding moves past the k-th sends
# two runs apart by 1e-3 within 200 steps.
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
    """Measures.

    Args:
      out: folder for result.json.
      data_dir: where data sets lie.
      size: dimensions of the tokens.
      latents: of each dictionary.
      batch: tokens a step.
      steps: of one turn.
      rounds: turns of each program.
    """
    if latents < 32:
        raise UserError(f"--latents is {latents}: give 32 or more, as many as are active")
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
            f"{found['over_200_steps']:.1e} over {COMPARED}; 8 members cost "
            f"{found['cost_of_8']:.2f} solo runs ({found['solo_ms']:.1f} ms a step)"
        )
        write_json(folder / "result.json", {**result, "environment": environment()})


def sweeps(size: int, latents: int, chunk: int) -> dict[str, tuple[jax.Array, Build]]:
    """Name -> (settings f[8], setting -> the learner of one member)."""
    active = jnp.asarray([2, 4, 6, 8, 12, 16, 24, 32])

    def one(code: Any, objective: ae.Objective) -> ae.Learner:
        scale = ae.nets.Scale
        model = ae.Autoencoder(scale(), code, ae.nets.Dictionary(size, scale=scale()))
        start = (ae.standardised(), ae.tied)
        return ae.chunked(
            ae.learner(model, objective, optax.adam(CAREFUL), initialise=start), chunk
        )

    revived = ae.sparse(revival=1 / 32)
    return {
        "topk": (active, lambda k: one(ae.TopK(latents, 32, active=k), revived)),  # pyright: ignore[reportCallIssue]
        "batchtopk": (active, lambda k: one(ae.BatchTopK(latents, k, 32), revived)),  # pyright: ignore[reportCallIssue]
        "l1": (jnp.geomspace(0.1, 10.0, MEMBERS), lambda l1: one(ae.ReLU(latents), ae.sparse(l1))),
        "seed": (jnp.zeros(MEMBERS), lambda _: one(ae.TopK(latents, 16), revived)),  # pyright: ignore[reportCallIssue]
    }


def equal(build: Build, settings: Any, batches: TokenBatches) -> dict[str, float]:
    """The largest relative difference of a member's losses from those of its solo run.

    Of the first, the middle and the last member, whose programs are compiled one by one.
    """
    together = _losses(ae.swept(build, settings), jax.random.key(0), batches)
    first, over = 0.0, 0.0
    for i in (0, MEMBERS // 2, MEMBERS - 1):
        # Member i has the key of seed i.
        solo = _losses(build(settings[i]), jax.random.key(i), batches)
        apart = np.abs(together[i] / solo - 1.0)
        first, over = max(first, float(apart[0])), max(over, float(apart.max()))
    return {"after_1_step": first, "over_200_steps": over}


def _losses(learner: ae.Learner, key: Any, batches: TokenBatches) -> np.ndarray:
    """f32[T] or f32[S, T]."""
    made = ae.compiled(learner)
    state = made.init(key, batches[0])
    found = [m["loss"] for _, m in ae.loop(made, state, batches, COMPARED, progress=False)]
    return np.concatenate(found, axis=-1)


def cost(
    build: Build, settings: Any, batches: TokenBatches, steps: int, rounds: int
) -> dict[str, Any]:
    """Milliseconds of a step, of one member and of eight in one program, in turns."""
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
    """A function that takes some steps more and says how long they took; compiled already."""
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
