"""log p(x) without the encoder: annealed importance sampling, and its gap from both sides.

A chain walks from the prior to the posterior through p(z) p(x | z)^b, b rising from 0 to 1, by
Hamiltonian Monte Carlo. Its weights bound log p(x) from below; on data that the model itself drew,
whose z is known, a chain walked backwards bounds it from above (bidirectional Monte Carlo).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.evaluation import chains
from aejax.evaluation.chains import Walk
from aejax.evaluation.likelihood import check, check_targets
from aejax.evaluation.parts import Data, Static, collect
from aejax.types import Array, Batch, Key, Variables


class Annealed(NamedTuple):
    """Annealed importance sampling of each example."""

    log_prob: np.ndarray  # f32[N], nats; a lower bound of log p(x) in expectation
    effective_sample_size: np.ndarray  # f32[N], from 1 to the number of chains
    acceptance: np.ndarray  # f32[N], of the walks' proposals


class Bidirectional(NamedTuple):
    """log p(x) of data that the model drew, from both sides; nats."""

    target: np.ndarray  # [N, *event], the data
    lower: np.ndarray  # f32[N], in expectation below log p(x)
    upper: np.ndarray  # f32[N], in expectation above

    @property
    def gap(self) -> float:
        """Mean of upper - lower: how far off either is at most, in expectation."""
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
    """log p(x) by annealed importance sampling (Neal 2001; Wu et al. 2017).

    The sizes of the steps are found by chains of their own and then held still, since a walk that
    adapts to itself would no longer leave its distribution invariant, and the bound would be none.

    Args:
      model: with a prior that it can draw from, a likelihood, and latents that are real numbers.
      variables: of one member.
      data: N examples.
      key: of the chains.
      walk: chains, temperatures and steps.
      batch: examples at a time; memory grows with batch * walk.chains.

    Raises:
      UserError: if the model gives data no probability, or a number of the walk is out of range.
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
    """log p(x) of data drawn from the model, from below and above (Grosse et al. 2015).

    Args:
      model, variables, walk: as for `annealed`.
      key: of the data and of the chains.
      examples: N, drawn from the prior and the likelihood.
      context: leaves [N, ...], of conditional models.

    Raises:
      UserError: as `annealed` does, or if examples < 1.
    """
    _check(model, key, walk)
    if examples < 1:
        raise UserError(f"examples is {examples}: draw 1 or more")
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
            f"the walk has steps of {walk.step} and accepts {walk.accept}: give a step above 0 and "
            "a share between 0 and 1"
        )


@functools.partial(jax.jit, static_argnums=(0, 3))
def _drawn(
    static: Static, variables: Variables, key: Key, examples: int, context: Any
) -> tuple[Batch, Any]:
    """Data from the model, and the latents that it came from."""
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
    """log p(x) from below, effective sample size and acceptance, f32[B] each."""

    def example(batch: Batch, index: Array) -> tuple[Array, Array, Array]:
        density = chains.density(static.model, variables, batch, walk.chains)
        tuning, start, moving, _ = _keys(key, index)
        steps = chains.tuned(density, walk, tuning)
        log_weight, accepted = chains.up(density, walk, moving, density.draw(start), steps)
        total = jax.nn.logsumexp(log_weight)
        size = jnp.exp(2.0 * total - jax.nn.logsumexp(2.0 * log_weight))
        return total - jnp.log(jnp.float32(walk.chains)), size, accepted

    return jax.vmap(example)(_singly(batch), index)


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
    """log p(x) from above, f32[B], given the latents that x came from."""

    def example(batch: Batch, index: Array, z: Any) -> Array:
        density = chains.density(static.model, variables, batch, walk.chains)
        tuning, _, _, moving = _keys(key, index)
        steps = chains.tuned(density, walk, tuning)
        many = jax.tree.map(lambda a: jnp.broadcast_to(a[None], (walk.chains, *a.shape)), z)
        log_weight = chains.down(density, walk, moving, many, steps)
        return jnp.log(jnp.float32(walk.chains)) - jax.nn.logsumexp(log_weight)

    return jax.vmap(example)(_singly(batch), index, z)


def _keys(key: Key, index: Array) -> Any:
    """Of one example: tuning, the first latents, the way up, the way down."""
    return jax.random.split(jax.random.fold_in(key, index), 4)


def _singly(batch: Batch) -> Batch:
    return jax.tree.map(lambda a: a[:, None], batch)
