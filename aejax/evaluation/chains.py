"""Hamiltonian Monte Carlo chains between the prior and the posterior of one example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.events import without_missing
from aejax.types import Array, Batch, Key, Variables

# The change of the log step size per unit of (acceptance - wanted acceptance).
_RATE = 0.1


class Walk(NamedTuple):
    """The settings of the Hamiltonian Monte Carlo chains of annealed importance sampling.

    More chains, temperatures or leapfrog steps make the bounds tighter and take longer.
    """

    chains: int = 16  # the number of chains for each example
    temperatures: int = 500  # T, the number of moves of a chain, each at a higher temperature
    leapfrogs: int = 10  # the number of leapfrog steps of one proposal
    step: float = 0.1  # the initial size of a leapfrog step, which is then adapted
    accept: float = 0.65  # the acceptance rate to which the step size is adapted


class Density(NamedTuple):
    """The densities p(z) and p(x | z) of one example, evaluated at the latents of all C chains."""

    draw: Callable[[Key], Any]  # draws C latents from the prior, leaves [C, ...]
    log_prior: Callable[[Any], Array]  # computes log p(z), f32[C]
    log_likelihood: Callable[[Any], Array]  # computes log p(x | z), f32[C]


def density(model: Any, variables: Variables, batch: Batch, chains: int) -> Density:
    """Returns functions of C latents that compute the densities of the batch's only example.

    Raises:
      UserError: when `draw` is called, if the latents are not real numbers.
    """
    bound = model.bind(variables)
    many: Batch = jax.tree.map(lambda a: jnp.repeat(a, chains, axis=0), without_missing(batch))

    def draw(key: Key) -> Any:
        z = bound.sample_latent(key, chains, many.context)
        if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(z)):
            raise UserError(
                "annealed importance sampling moves latents along gradients, but this prior draws "
                "integers: evaluate a model with real-valued latents"
            )
        return z

    def log_prior(z: Any) -> Array:
        return bound.prior.log_prob(z, many.context, bound.posterior)

    def log_likelihood(z: Any) -> Array:
        prediction = bound.decode(bound.lift(z, many.context), many.context)
        return bound.likelihood.log_prob(prediction, many.target, many.mask)

    return Density(draw, log_prior, log_likelihood)


def temperatures(count: int) -> np.ndarray:
    """Returns temperatures from 0 to 1, f32[count + 1], which are densest near both ends.

    The temperature is the exponent b of p(z) p(x | z)^b (Wu et al. 2017).
    """
    squashed = 1.0 / (1.0 + np.exp(-np.linspace(-4.0, 4.0, count + 1)))
    return ((squashed - squashed[0]) / (squashed[-1] - squashed[0])).astype(np.float32)


def tuned(density: Density, walk: Walk, key: Key) -> Array:
    """Returns the leapfrog step size at each temperature, f32[T], found by adaptive chains.

    The adaptive chains start from draws of their own. Step sizes that depended on the starting
    points of the chains of `up` would bias the weights of these.
    """

    def one(carry: tuple[Any, Array], now: tuple[Array, Key]) -> tuple[tuple[Any, Array], Array]:
        (z, log_step), (temperature, key) = carry, now
        z, accepted = _move(density, walk, key, z, temperature, jnp.exp(log_step))
        return (z, log_step + _RATE * (accepted - walk.accept)), jnp.exp(log_step)

    rising = jnp.asarray(temperatures(walk.temperatures)[1:])
    start_key, key = jax.random.split(key)
    keys = jax.random.split(key, walk.temperatures)
    start = (density.draw(start_key), jnp.log(jnp.float32(walk.step)))
    return jax.lax.scan(one, start, (rising, keys))[1]


def up(density: Density, walk: Walk, key: Key, z: Any, steps: Array) -> tuple[Array, Array]:
    """Runs the chains from latents z, drawn from the prior, to the posterior.

    A chain's log-weight is sum_t (b_t - b_{t-1}) log p(x | z_{t-1}), where z_t is z_{t-1} after a
    move at temperature b_t (Neal 2001, equation 3).

    Returns:
      The log-weights f32[C], and the mean acceptance f32[].
    """

    def one(carry: tuple[Any, Array], now: Any) -> tuple[tuple[Any, Array], Array]:
        (z, log_weight), (temperature, rise, step, key) = carry, now
        log_weight = log_weight + rise * density.log_likelihood(z)
        z, accepted = _move(density, walk, key, z, temperature, step)
        return (z, log_weight), accepted

    (_, log_weight), accepted = jax.lax.scan(
        one, (z, jnp.zeros(walk.chains)), _path(walk, key, steps)
    )
    return log_weight, jnp.mean(accepted)


def down(density: Density, walk: Walk, key: Key, z: Any, steps: Array) -> Array:
    """Runs the chains from latents z, drawn from the posterior, to the prior.

    The mean weight of the chains estimates 1 / p(x).

    The order of operations is the reverse of that in `up`: at each temperature the chain moves
    first, and then its weight is updated (Grosse et al. 2015).

    Returns:
      The log-weights f32[C].
    """

    def one(carry: tuple[Any, Array], now: Any) -> tuple[tuple[Any, Array], None]:
        (z, log_weight), (temperature, rise, step, key) = carry, now
        z, _ = _move(density, walk, key, z, temperature, step)
        return (z, log_weight - rise * density.log_likelihood(z)), None

    start = (z, jnp.zeros(walk.chains))
    return jax.lax.scan(one, start, _path(walk, key, steps), reverse=True)[0][1]


def _path(walk: Walk, key: Key, steps: Array) -> tuple[Array, Array, Array, Key]:
    """Returns the temperatures, their differences, the step sizes and the keys, [T] each."""
    points = temperatures(walk.temperatures)
    rises = jnp.asarray(np.diff(points))
    return jnp.asarray(points[1:]), rises, steps, jax.random.split(key, walk.temperatures)


def _move(
    density: Density, walk: Walk, key: Key, z: Any, temperature: Array, step: Array
) -> tuple[Any, Array]:
    """Moves each chain's latents by one step of Hamiltonian Monte Carlo at a temperature.

    Returns:
      The new latents, and the mean acceptance probability f32[].
    """

    def log_density(z: Any) -> Array:
        return density.log_prior(z) + temperature * density.log_likelihood(z)

    force = jax.grad(lambda z: jnp.sum(log_density(z)))
    momentum_key, accept_key = jax.random.split(key)
    momentum = _normal_like(momentum_key, z)

    def leapfrog(_: Any, point: tuple[Any, Any]) -> tuple[Any, Any]:
        at = _add(point[0], step, point[1])
        return at, _add(point[1], step, force(at))

    # The momentum is advanced by half a step first, and by a whole step after each position step;
    # half of the last whole step is then subtracted again.
    start = (z, _add(momentum, 0.5 * step, force(z)))
    moved, speed = jax.lax.fori_loop(0, walk.leapfrogs, leapfrog, start)
    speed = _add(speed, -0.5 * step, force(moved))
    gain = log_density(moved) - _kinetic(speed) - log_density(z) + _kinetic(momentum)
    # A proposal that diverged to NaN is rejected.
    probability = jnp.where(jnp.isnan(gain), 0.0, jnp.exp(jnp.minimum(gain, 0.0)))
    keep = jax.random.uniform(accept_key, probability.shape) < probability

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(keep.reshape((-1, *(1,) * (new.ndim - 1))), new, old)

    return jax.tree.map(choose, moved, z), jnp.mean(probability)


def _normal_like(key: Key, z: Any) -> Any:
    leaves, tree = jax.tree.flatten(z)
    keys = jax.random.split(key, len(leaves))
    draws = [jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, draws)


def _add(a: Any, scale: Array, b: Any) -> Any:
    return jax.tree.map(lambda x, y: x + scale * y, a, b)


def _kinetic(momentum: Any) -> Array:
    """Returns the kinetic energy of each chain, f32[C]."""
    squares = [
        jnp.sum(jnp.square(a).reshape((a.shape[0], -1)), -1) for a in jax.tree.leaves(momentum)
    ]
    return 0.5 * sum(squares[1:], squares[0])
