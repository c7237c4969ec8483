"""Schedules of a weight over the steps: only what optax lacks.

KL warm-up is optax's, and so is a rising capacity:

    elbo(beta=optax.linear_schedule(0.0, 1.0, 10_000))
    losses.capacity(optax.linear_schedule(0.0, 25.0, 100_000))
    elbo(beta=schedules.cyclical(10_000))
"""

from __future__ import annotations

import jax.numpy as jnp
import optax

from aejax.errors import UserError
from aejax.types import Array


def cyclical(
    period: int, peak: float = 1.0, ramp: float = 0.5, cycles: int | None = None
) -> optax.Schedule:
    """Rises from 0 to `peak`, stays there, and starts again (Fu et al. 2019, equation 6).

    Args:
      period: steps of one cycle.
      peak: the weight at the end of each rise.
      ramp: the share of a cycle that the linear rise takes.
      cycles: after so many the weight stays at the peak; None: never.

    Returns:
      step i32[] -> f32[].

    Raises:
      UserError: if period < 1, ramp is outside (0, 1] or cycles < 1.
    """
    if period < 1:
        raise UserError(f"period is {period}, but a cycle takes 1 step or more")
    if not 0.0 < ramp <= 1.0:
        raise UserError(f"ramp is {ramp}, but a share of the cycle lies in (0, 1]")
    if cycles is not None and cycles < 1:
        raise UserError(f"cycles is {cycles}: give 1 or more, or None for no end")

    def schedule(step: Array) -> Array:
        step = jnp.asarray(step)
        # The remainder of integers: float32 no longer counts every step beyond 16 million.
        position = (step % period).astype(jnp.float32) / (period * ramp)
        risen = jnp.minimum(position, 1.0)
        if cycles is not None:
            risen = jnp.where(step >= cycles * period, 1.0, risen)
        return peak * risen

    return schedule  # pyright: ignore[reportReturnType]
