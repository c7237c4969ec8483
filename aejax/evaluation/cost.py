"""Estimates how long an importance-weighted NLL takes, to print the time before it is computed."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax

from aejax.data.fixed import as_data
from aejax.evaluation.batches import Data, Static, full_batches
from aejax.evaluation.likelihood import check, check_targets, importance
from aejax.types import Variables


class Cost(NamedTuple):
    """The cost of an importance-weighted NLL; its string is a sentence to print."""

    examples: int  # N, the number of examples
    draws: int  # K, the number of draws for each example
    passes: int  # N * K, the number of decoder passes
    seconds: float  # the estimated duration

    def __str__(self) -> str:
        return (
            f"NLL: {self.examples:,} examples x {self.draws:,} draws = {self.passes:,} decoder "
            f"passes, about {self.seconds:,.1f} s"
        )


def nll_cost(
    model: Any,
    variables: Variables,
    data: Data,
    draws: int,
    *,
    batch: int = 100,
    group: int = 10,
) -> Cost:
    """Estimates how long `nll` takes for one model, by timing a few groups of draws.

    It compiles the program that `nll` runs, so that `nll` does not compile it again.

    Args:
      model: a model with a prior and a likelihood.
      variables: the variables of one model, without a leading axis of seeds.
      data: the examples: a split, an array [N, *event], or a Batch.
      draws: K, the number of importance samples.
      batch: the number of examples at a time.
      group: the number of draws at a time.

    Raises:
      UserError: in the cases that `elbo` names.
    """
    key = jax.random.key(0, impl="threefry2x32")
    check(model, key, draws, group)
    data = as_data(data)
    check_targets(model, data)
    group = min(group, draws)
    first = next(full_batches(data, batch))
    groups = -(-draws // group)
    trial = min(groups, 4)

    def run() -> None:
        result = importance(
            Static(model), variables, key, trial * group, group, first.batch, first.index
        )
        jax.block_until_ready(result)

    run()  # The first call compiles and is not timed.
    start = time.perf_counter()
    run()
    per_group = (time.perf_counter() - start) / trial
    batches = -(-len(data) // len(first.index))
    return Cost(len(data), draws, len(data) * draws, per_group * groups * batches)
