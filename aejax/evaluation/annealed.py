"""Estimates log p(x) without the encoder, by annealed importance sampling.

By Hamiltonian Monte Carlo, a chain moves latents from the prior to the posterior through densities
proportional to p(z) p(x | z)^b, where b rises from 0 to 1. The logarithm of its mean importance
weight is in expectation a lower bound of log p(x). For data that the model itself generated, the
latents are known, and chains in the reverse direction give an upper bound (bidirectional Monte
Carlo).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.evaluation import chains
from aejax.evaluation.batches import Data, Static, collect
from aejax.evaluation.chains import Walk
from aejax.evaluation.likelihood import check, check_targets
from aejax.types import Array, Batch, Key, Variables


class Annealed(NamedTuple):
    """The result of annealed importance sampling for each example."""

    log_prob: np.ndarray  # f32[N], nats; a lower bound of log p(x) in expectation
    effective_sample_size: np.ndarray  # f32[N], from 1 to the number of chains
    acceptance: np.ndarray  # f32[N], the mean acceptance probability of the proposals


class Bidirectional(NamedTuple):
    """A lower and an upper bound of log p(x), in nats, for data that the model generated."""

    target: np.ndarray  # [N, *event], the data
    lower: np.ndarray  # f32[N], in expectation at most log p(x)
    upper: np.ndarray  # f32[N], in expectation at least log p(x)

    @property
    def gap(self) -> float:
        """Returns the mean of upper - lower, in nats.

        In expectation the error of either bound is at most this gap.
        """
        return float(np.mean(np.asarray(self.upper, np.float64) - self.lower))


def annealed(
    model: Any,
    variables: Variables,
    data: Data,
    key: Key,
    walk: Walk = Walk(),  # noqa: B008 (immutable)
    *,
    batch: int = 100,
) -> Annealed:
    """Estimates log p(x) by annealed importance sampling (Neal 2001; Wu et al. 2017).

    Separate chains tune the step sizes, which are then fixed, because a chain that adapts its own
    step size does not leave its distribution invariant, so its weights give no bound of log p(x).

    Args:
      model: a model with a prior that can be sampled, a likelihood, and real-valued latents.
      variables: the variables of one model, without a leading axis of seeds.
      data: N examples: a split, an array [N, *event], or a Batch.
      key: the key of the chains.
      walk: the settings of the chains, such as their number and the number of temperatures.
      batch: the number of examples at a time; memory grows with batch * walk.chains.

    Returns:
      Annealed: the bound, the effective sample size and the acceptance rate of each example.

    Raises:
      UserError: if the model has no prior or no likelihood, the latents are not real numbers, or a
        setting of `walk` is out of range.
    """
    _check(model, key, walk)
    check_targets(model, data)
    return Annealed(*collect(functools.partial(_lower, Static(model), walk, variables, key),
                             data, batch))  # fmt: skip


def bidirectional(
    model: Any,
    variables: Variables,
    key: Key,
    walk: Walk = Walk(),  # noqa: B008 (immutable)
    *,
    examples: int = 100,
    context: Any = None,
) -> Bidirectional:
    """Bounds log p(x) from below and above for data drawn from the model (Grosse et al. 2015).

    Args:
      model: a model with a prior that can be sampled, a likelihood, and real-valued latents.
      variables: the variables of one model, without a leading axis of seeds.
      key: the random key from which the data and the chains are drawn.
      walk: the settings of the chains, such as their number and the number of temperatures.
      examples: N, the number of examples that are drawn from the prior and the likelihood.
      context: the context of a conditional model, a pytree with leaves [N, ...]; None: no context.

    Returns:
      Bidirectional: the generated data, and both bounds of each example.

    Raises:
      UserError: in the cases that `annealed` names, or if examples < 1.
    """
    _check(model, key, walk)
    if examples < 1:
        raise UserError(f"examples is {examples}: give 1 or more")
    drawing, moving = jax.random.split(key)
    static, index = Static(model), jnp.arange(examples)
    batch, z = _drawn(static, variables, drawing, examples, context)
    lower, _, _ = _lower(static, walk, variables, moving, batch, index)
    upper = _upper(static, walk, variables, moving, batch, index, z)
    return Bidirectional(*(np.asarray(a) for a in (batch.target, lower, upper)))


def _check(model: Any, key: Key, walk: Walk) -> None:
    check(model, key, 1, 1)
    for name in ("chains", "temperatures", "leapfrogs"):
        if getattr(walk, name) < 1:
            raise UserError(f"the walk's {name} is {getattr(walk, name)}: give 1 or more")
    if walk.step <= 0 or not 0 < walk.accept < 1:
        raise UserError(
            f"the walk has step={walk.step} and accept={walk.accept}: give a step above 0 and an "
            "acceptance between 0 and 1"
        )


@functools.partial(jax.jit, static_argnums=(0, 3))
def _drawn(
    static: Static, variables: Variables, key: Key, examples: int, context: Any
) -> tuple[Batch, Any]:
    """Draws data from the model, and returns it with the latents that generated it."""
    bound = static.model.bind(variables)
    latent_key, target_key = jax.random.split(key)
    z = bound.sample_latent(latent_key, examples, context)
    prediction = bound.decode(bound.lift(z, context), context)
    target = bound.likelihood.sample(target_key, prediction)
    return Batch(target, target, context), z


@functools.partial(jax.jit, static_argnums=(0, 1))
def _lower(
    static: Static, walk: Walk, variables: Variables, key: Key, batch: Batch, index: Array
) -> tuple[Array, Array, Array]:
    """Returns lower bounds of log p(x), effective sample sizes, acceptance rates, f32[B] each."""

    def example(batch: Batch, index: Array) -> tuple[Array, Array, Array]:
        density = chains.density(static.model, variables, batch, walk.chains)
        tuning, start, moving, _ = _keys(key, index)
        steps = chains.tuned(density, walk, tuning)
        log_weight, accepted = chains.up(density, walk, moving, density.draw(start), steps)
        total = jax.nn.logsumexp(log_weight)
        size = jnp.exp(2.0 * total - jax.nn.logsumexp(2.0 * log_weight))
        return total - jnp.log(jnp.float32(walk.chains)), size, accepted

    return jax.vmap(example)(_batches_of_one(batch), index)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _upper(
    static: Static,
    walk: Walk,
    variables: Variables,
    key: Key,
    batch: Batch,
    index: Array,
    z: Any,
) -> Array:
    """Returns an upper bound of log p(x), f32[B], given the latents that generated x."""

    def example(batch: Batch, index: Array, z: Any) -> Array:
        density = chains.density(static.model, variables, batch, walk.chains)
        tuning, _, _, moving = _keys(key, index)
        steps = chains.tuned(density, walk, tuning)
        many = jax.tree.map(lambda a: jnp.broadcast_to(a[None], (walk.chains, *a.shape)), z)
        log_weight = chains.down(density, walk, moving, many, steps)
        return jnp.log(jnp.float32(walk.chains)) - jax.nn.logsumexp(log_weight)

    return jax.vmap(example)(_batches_of_one(batch), index, z)


def _keys(key: Key, index: Array) -> Any:
    """Returns four keys of an example: for tuning, initial latents, `chains.up`, `chains.down`."""
    return jax.random.split(jax.random.fold_in(key, index), 4)


def _batches_of_one(batch: Batch) -> Batch:
    return jax.tree.map(lambda a: a[:, None], batch)
