"""What an importance-weighted NLL will take, to be printed before it starts."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax

from aejax.evaluation.likelihood import check, check_targets, importance
from aejax.evaluation.parts import Data, Static, parts
from aejax.types import Variables


class Cost(NamedTuple):
    """What an importance-weighted NLL will take."""

    examples: int  # N
    draws: int  # K
    passes: int  # through the decoder, N * K
    seconds: float  # estimated

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
    """What `nll` of one member will take, from timing a few groups of draws.

    The program that it compiles is the one that `nll` runs.

    Args:
      model, variables, data, draws, batch, group: as for `nll`.

    Raises:
      UserError: as `nll` does.
    """
    key = jax.random.key(0, impl="threefry2x32")
    check(model, key, draws, group)
    check_targets(model, data)
    group = min(group, draws)
    first = next(parts(data, batch))
    groups = -(-draws // group)
    trial = min(groups, 4)

    def run() -> None:
        result = importance(
            Static(model), variables, key, trial * group, group, first.batch, first.index
        )
        jax.block_until_ready(result)

    run()  # compiles
    start = time.perf_counter()
    run()
    per_group = (time.perf_counter() - start) / trial
    batches = -(-len(data) // len(first.index))
    return Cost(len(data), draws, len(data) * draws, per_group * groups * batches)
