"""Speed of training on data and networks of one's own, compared with arrays and a bare loop.

    python -m experiments bench-ways-in

The model and the images are those of `bench-vae`. There are two comparisons. In each of them the
programs are timed alternately, and each figure is the median over rounds:

data        `learner` trains on an array that is kept on the device. The others read the same
            images from a PyTorch-style data set, a chunk of steps ahead: `batched` by a
            `__getitems__` that returns an array, `listed` by one that returns a list of examples,
            as in PyTorch, and `single` by `__getitem__`, one example per call.
batch norm  `learner` trains with flax's BatchNorm before each relu, `bare` is a hand-written loop
            with the same BatchNorm.

Expected on 2 otherwise idle CPU cores: `batched` reaches 0.8 of the speed of arrays or more, and
the learner with BatchNorm 0.95 of the bare loop or more. It takes 2 minutes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from flax import linen as nn

import aejax as ae
from aejax.files import write_json
from aejax.runs.environment import environment
from experiments.benchmarks.bench_vae import (
    PIXELS,
    WIDTH,
    bare,
    learner,
    pictures,
    ratios,
    take_turns,
)
from experiments.shared.place import prepared, say


@dataclasses.dataclass(frozen=True)
class Single:
    """A PyTorch-style data set that reads one example per call."""

    images: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.images[i]


class Listed(Single):
    """A data set that returns the examples of a batch as a list, as data sets of PyTorch do."""

    def __getitems__(self, indices: Sequence[int]) -> list[np.ndarray]:
        return [self.images[i] for i in indices]


class Batched(Single):
    """A data set that returns the examples of a batch as one array."""

    def __getitems__(self, indices: Sequence[int]) -> np.ndarray:
        return self.images[indices]


def command(out: str = "runs/bench-ways-in", rounds: int = 5, chunks: int = 6) -> None:
    """Times the training of a VAE on each kind of data and net, and writes result.json.

    Args:
      out: folder for result.json.
      rounds: how many times each program is timed.
      chunks: number of calls, of 100 steps each, in one timing of the comparison `data`. The
        comparison `batch norm` makes as many calls, but times each one separately.
    """
    folder = prepared(out, rounds=rounds, chunks=chunks)
    images = pictures()
    train = ae.data.splits(images, validation=None)[0]
    encoder = nn.Sequential([nn.Dense(WIDTH), nn.BatchNorm(), nn.relu])
    decoder = nn.Sequential([nn.Dense(WIDTH), nn.BatchNorm(), nn.relu, nn.Dense(PIXELS)])
    read = {"batched": Batched, "listed": Listed, "single": Single}
    contests = {
        "data": {"learner": learner(train, chunks)}
        | {name: learner(ae.data.source(kind(images))[0], chunks) for name, kind in read.items()},
        # Many short timings distinguish two programs of almost equal speed better than few long.
        "batch norm": {
            "learner": learner(train, 1, encoder, decoder),
            "bare": bare(train, 1, normed=True),
        },
    }
    result = {}
    for contest, programs in contests.items():
        figures = take_turns(programs, rounds if contest == "data" else rounds * chunks)
        result[contest] = {**figures, "ratios": ratios(figures)}
        for name, row in figures.items():
            say(f"  {contest}: {name:<8} {row['images_per_second']:>10,.0f} images/s")
        for name, ratio in result[contest]["ratios"].items():
            say(f"  {contest}: learner / {name}: {ratio:.2f}")
    write_json(folder / "result.json", {**result, "environment": environment()})
