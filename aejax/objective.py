"""Objectives: a loss is a mapping from the name of each term to (weight, term).

Losses are composed by merging such mappings:

    vae     = elbo()                                             # rate + distortion
    beta    = elbo(beta=optax.linear_schedule(0.0, 4.0, 1_000))  # KL warm-up to beta = 4
    cycles  = elbo(beta=cyclical(10_000))                        # repeated KL warm-up
    watched = merge(beta, watch(error=losses.squared_error))     # logged, not added to the loss
    custom  = merge(elbo(), {"smooth": (0.1, my_term)})          # my_term(model, forward) -> f32[B]
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from aejax import losses
from aejax.errors import UserError
from aejax.types import Array, Forward, Objective, Term

if TYPE_CHECKING:
    from flax import linen as nn


def merge(*objectives: Objective) -> Objective:
    """Returns one objective with all terms of the given objectives.

    Merging is associative, with {} as its identity.

    Raises:
      UserError: if two objectives use the same name.
    """
    merged: dict[str, tuple[Any, Term]] = {}
    for objective in objectives:
        repeated = sorted(merged.keys() & objective.keys())
        if repeated:
            raise UserError(
                f"two of the merged objectives have a term named {repeated[0]!r}: rename one"
            )
        merged.update(objective)
    return merged


def watch(**terms: Term) -> Objective:
    """Returns an objective of terms that are computed and logged but not added to the loss."""
    return {name: (None, term) for name, term in terms.items()}


def elbo(beta: optax.ScalarOrSchedule = 1.0, rate: Term = losses.kl) -> Objective:
    """Returns the negative evidence lower bound, beta * rate + distortion (Higgins et al. 2017).

    Args:
      beta: the weight of the rate, a number or a schedule of the step. The sum bounds -log p(x)
        from above if beta is 1.
      rate: the rate term: `losses.kl`, the KL divergence in closed form, or `losses.rate()`,
        its estimate at the drawn z, which every bound except `bounds.mean` needs.
    """
    return {"rate": (beta, rate), "distortion": (1.0, losses.distortion)}


def cyclical(
    period: int, peak: float = 1.0, ramp: float = 0.5, cycles: int | None = None
) -> optax.Schedule:
    """Returns a cyclical schedule: it rises from 0 to `peak`, stays there, and starts again.

    The schedule is that of Fu et al. 2019, equation 6.

    Args:
      period: the number of steps of one cycle.
      peak: the weight at the end of each rise.
      ramp: the share of a cycle in which the weight rises linearly.
      cycles: the number of cycles, after which the weight stays at the peak; None: infinitely many.

    Returns:
      A function from the step, i32[], to the weight, f32[].

    Raises:
      UserError: if period < 1, ramp is outside (0, 1] or cycles < 1.
    """
    if period < 1:
        raise UserError(f"period is {period}, but a cycle has 1 step or more: give 1 or more")
    if not 0.0 < ramp <= 1.0:
        raise UserError(f"ramp is {ramp}, but it is a share of the cycle: give a number in (0, 1]")
    if cycles is not None and cycles < 1:
        raise UserError(f"cycles is {cycles}: give 1 or more, or None for infinitely many cycles")

    def schedule(step: Array) -> Array:
        step = jnp.asarray(step)
        # The remainder is computed in integers, because float32 cannot hold every step above 2^24.
        position = (step % period).astype(jnp.float32) / (period * ramp)
        risen = jnp.minimum(position, 1.0)
        if cycles is not None:
            risen = jnp.where(step >= cycles * period, 1.0, risen)
        return peak * risen

    return schedule  # pyright: ignore[reportReturnType]


def reconstruction() -> Objective:
    """Returns the standard autoencoder's objective, which is the distortion only."""
    return {"distortion": (1.0, losses.distortion)}


def sparse(
    l1: optax.ScalarOrSchedule | None = None,
    auxk: optax.ScalarOrSchedule | None = None,
    steered: Term | None = None,
    dead_after: int = 1000,
    error: Term = losses.scaled_error,
) -> Objective:
    """Returns the objective of a sparse autoencoder: an error, a sparsity penalty and AuxK.

    Args:
      l1: the weight of the L1 norm; None: no L1 term, which suits bottlenecks with a fixed number
        of active latents.
      auxk: the weight of AuxK, a loss that revives dead latents, usually 1/32 or 1; None: no
        such term.
      steered: a sparsity penalty whose weight a controller adjusts until the mean number of active
        latents equals the bottleneck's `l0`, such as `losses.penalty`; None: no such term.
      dead_after: the number of steps without activation after which a latent is dead.
      error: the error term: `losses.scaled_error`, `losses.unexplained`,
        `losses.normalised_error`, or `losses.prefix_error(...)` for nested dictionaries.
    """
    terms: dict[str, tuple[Any, Term]] = {"error": (1.0, error)}
    if l1 is not None:
        terms["l1"] = (l1, losses.l1)
    if auxk is not None:
        terms["auxk"] = (auxk, losses.auxk(after=dead_after))
    watched = watch(l0=losses.l0, dead=losses.dead(dead_after))
    return merge(terms, watched, {} if steered is None else steer(steered))


def steer(penalty: Term) -> Objective:
    """Returns an objective with a sparsity penalty whose weight a controller adjusts.

    The controller adjusts the weight until the mean number of active latents (L0) is the
    bottleneck's target `l0`. The weighted penalty has the name `price`, and the relative deviation
    mean(L0) / l0 - 1 is logged as `off_target`.

    Args:
      penalty: a term that grows with the size or number of the active latents, such as
        `losses.penalty`, which the bottleneck's class defines.
    """
    return {"price": (1.0, losses.priced(penalty)), **watch(off_target=losses.off_target)}


class Total(NamedTuple):
    """The values of an objective for one forward pass."""

    ratio: Array  # f32[B], the weighted sum of the terms marked by `losses.ratio`
    penalty: Array  # f32[B], the weighted sum of all other terms
    values: dict[str, Array]  # name -> f32[B], the unweighted value of each term


def total(objective: Objective, model: nn.Module, forward: Forward) -> Total:
    """Evaluates every term with its own key, and returns the values and their weighted sums.

    A term with the weight None is not in the sums. A term's key depends on its name only, so adding
    a term does not change the random draws of other terms.

    Raises:
      UserError: if a term reads a field that the code or bottleneck lacks, or returns a wrong
        shape; the message names the term.
    """
    size = forward.batch.target.shape[0]
    sums = {"ratio": jnp.zeros((size,)), "penalty": jnp.zeros((size,))}
    values: dict[str, Array] = {}
    for name, (weight, term) in objective.items():
        value = _evaluate(name, term, model, forward)
        values[name] = value
        if weight is not None:
            now = weight(forward.step) if callable(weight) else weight
            sums[losses.mark(term).part] += jnp.asarray(now, jnp.float32) * value
    return Total(sums["ratio"], sums["penalty"], values)


def _evaluate(name: str, term: Term, model: nn.Module, forward: Forward) -> Array:
    key = forward.key
    if key is not None:
        key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    try:
        value = term(model, forward._replace(key=key))
    except AttributeError as error:
        read = {"code": forward.code, "bottleneck": getattr(model, "bottleneck", None)}
        for where, part in read.items():
            if error.obj is part:
                fields = ", ".join(getattr(part, "_fields", ()))
                raise UserError(
                    f"the term {name!r} reads {where}.{error.name}, which a {type(part).__name__} "
                    f"does not have{fields and f' (its fields: {fields})'}: pair the term with "
                    "another bottleneck"
                ) from error
        raise
    size = forward.batch.target.shape[0]
    if jnp.shape(value) != (size,):
        raise UserError(
            f"the term {name!r} returned shape {jnp.shape(value)}; a term must return one value "
            f"per example, ({size},)"
        )
    return value
