"""One long run, whose memory, files, threads and time of a checkpoint must not grow.

    python -m tests.campaign.endurance --minutes 62 --out campaign

The run is of `ae.loop` and `Run`, of a model so small that most of its time would be spent in
steps; it waits between calls, so that the steps last as long as the minutes do. Each minute
is measured. From the tenth minute on, the median of the last ten minutes must be that of the first
ten within TOLERANCE: resident memory, descriptors, threads, and the processor's time of a
checkpoint, which other programs on the machine lengthen less than the clock's.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
import optax

import aejax as ae
from aejax.files import write_json
from tests.harm import resident

STEPS, CHUNK, SECONDS = 600_000, 100, 5.0  # of the run, of a call, and between checkpoints
TOLERANCE, WARM = 0.05, 10  # a share, and the minutes that are not compared


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int


def trained(folder: pathlib.Path, steps: int, seconds: float) -> Iterable[tuple[float, float]]:
    """Trains for `seconds`, and yields each checkpoint's time: the processor's and the clock's.

    A pair of zeros stands for a call after which no checkpoint was due.
    """
    x = np.random.default_rng(0).random((256, 12), dtype=np.float32)
    train, _, _ = ae.data.arrays(x, binarise="dynamic")
    model = ae.Autoencoder(
        encoder=ae.nets.MLP((8,)),
        bottleneck=ae.Gaussian(2),
        decoder=ae.nets.MLP((8,), shape=(12,)),
        prior=ae.priors.Standard(),
        likelihood=ae.likelihoods.Bernoulli(),
    )
    learner = ae.seeds(ae.learner(model, ae.elbo(), optax.adam(1e-3)), 2)
    learner = ae.compiled(ae.chunked(learner, CHUNK))
    batches = ae.data.Batches(train, size=16, seed=0)
    begun = time.monotonic()
    with ae.Run(folder, Config(steps), checkpoint_seconds=SECONDS, log_every=20) as run:
        first = run.restore(learner.init(jax.random.key(0), batches[0]))
        for state, metrics in ae.loop(learner, first, batches, steps):
            run.log(state, metrics)
            before, processor, clock = run._writer.step, time.process_time(), time.perf_counter()
            run.save(state)
            run._writer.wait()
            wrote = run._writer.step != before
            spent = time.process_time() - processor, time.perf_counter() - clock
            yield spent if wrote else (0.0, 0.0)
            late = begun + seconds * int(state.step) / steps - time.monotonic()
            time.sleep(max(0.0, late))
        run.finish({"loss": metrics["loss"][:, -1]}, state)


def measured(calls: Iterable[tuple[float, float]], note: Callable[[Any], None]) -> list[Any]:
    """Returns what was measured in each minute, and notes it meanwhile."""
    minutes: list[dict[str, Any]] = []
    begun, spent = time.monotonic(), []
    for call in calls:
        spent += [call] if any(call) else []
        if time.monotonic() - begun < 60 * (len(minutes) + 1) or not spent:
            continue
        processor, clock = np.median(spent, axis=0).tolist()
        minutes.append(
            {
                "resident": resident("VmRSS"),
                "descriptors": len(os.listdir("/proc/self/fd")),
                "threads": len(os.listdir("/proc/self/task")),
                "checkpoint_processor_seconds": processor,
                "checkpoint_seconds": clock,
                "checkpoints": len(spent),
            }
        )
        note(minutes)
        spent = []
    return minutes


def growth(minutes: list[dict[str, Any]]) -> dict[str, float]:
    """Returns for each figure the last ten minutes' median over the first ten's, after WARM."""
    kept = minutes[WARM:]

    def median(part: list[dict[str, Any]], name: str) -> float:
        return float(np.median([minute[name] for minute in part]))

    return {name: median(kept[-10:], name) / median(kept[:10], name) for name in kept[0]}


def main() -> None:
    """Runs, prints the growth of each figure, and fails if one is beyond TOLERANCE."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.endurance")
    parser.add_argument("--minutes", type=float, default=62)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "endurance.json"
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        calls = trained(pathlib.Path(folder) / "run", STEPS, 60 * given.minutes)
        minutes = measured(calls, lambda minutes: write_json(path, {"minutes": minutes}))
    grown = growth(minutes)
    write_json(path, {"steps": STEPS, "growth": grown, "minutes": minutes})
    print(f"{STEPS:,} steps in {len(minutes)} minutes: {grown}")
    for name, factor in grown.items():
        # The clock's time depends on what else the machine does, and is written down only.
        if name not in ("checkpoint_seconds", "checkpoints"):
            assert abs(factor - 1) <= TOLERANCE, f"{name} grew by the factor {factor:.3f}"


if __name__ == "__main__":
    main()
