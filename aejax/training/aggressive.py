"""An optimiser that trains the encoder more often than the decoder, at first."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jax.numpy as jnp
import optax

from aejax.checks import at_least
from aejax.types import Array

GENERATING = ("decoder", "likelihood", "prior")


def aggressive(
    tx: optax.GradientTransformation,
    every: int,
    until: int,
    slow: Collection[str] = GENERATING,
) -> optax.GradientTransformation:
    """Returns an optimiser that at first updates the generating parts only in every n-th step.

    A posterior that lags behind the decoder lets the decoder learn to ignore the code. Training
    encoder and bottleneck more often prevents this (He et al. 2019). The paper's inner loop, which
    ends when the bound no longer improves, is replaced by a fixed number of steps.

    Args:
      tx: the optimiser of all parts; for the generating parts it counts only their own updates.
      every: the number of steps from one update of the generating parts to the next.
      until: the step from which all parts are updated in every step.
      slow: the names of the generating parts, such as the decoder.

    Raises:
      UserError: if `every` is below 1, or `until` below 0.
    """
    at_least(1, "every", every)
    at_least(0, "until", until)

    def due(step: Any, **_: Any) -> Array:
        return (step >= until) | (jnp.asarray(step) % every == every - 1)

    def labels(params: Any) -> Any:
        return {name: "slow" if name in slow else "fast" for name in params}

    lagging = optax.conditionally_mask(tx, due)
    return optax.multi_transform({"fast": tx, "slow": lagging}, labels)
