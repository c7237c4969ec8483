"""Anomalies as what a trained plain or variational autoencoder explains badly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aejax import losses
from aejax.bottlenecks.gaussian import GaussianCode
from aejax.errors import UserError
from aejax.inspection.detector import Detector, State
from aejax.types import Array, Batch, Key, Variables

DRAWS = 4  # codes over which an ELBO is averaged; regrets take fewer, because they take most time
REGRET_DRAWS, REGRET_STEPS, REGRET_RATE = 2, 30, 0.05  # and Adam's steps and learning rate


def _nothing(key: Key, good: np.ndarray) -> State:
    """Returns the state of a detector that is a trained model, which has nothing to fit."""
    return {}


def _error(model: Any) -> Callable[[State, Array], Array]:
    """Returns a function to maps of the squared error of reconstructions without noise."""

    def error(state: State, pictures: Array) -> Array:
        bound = model.bind(state["variables"])
        forward = bound(Batch(pictures, pictures))
        return jnp.sum(jnp.square(pictures - bound.mean(forward.prediction)), axis=-1)

    return error


def reconstruction(model: Any, variables: Variables) -> Detector:
    """Returns the detector whose map is the squared error of the reconstruction without noise.

    Args:
      model: a trained autoencoder of pictures, of any kind.
      variables: its variables, without an axis of seeds.
    """
    return Detector(_nothing, _error(model), given={"variables": variables})


def negative_elbo(model: Any, variables: Variables) -> Detector:
    """Returns the detector whose score is -ELBO, in nats; its map is that of `reconstruction`.

    All pictures get the same noise, so that a score depends neither on the batch nor on the order.

    Args:
      model: a trained variational autoencoder with a Gaussian posterior.
      variables: its variables, without an axis of seeds.
    """

    def score(state: State, pictures: Array, maps: Array) -> Array:
        bound = model.bind(state["variables"])
        return _cost(bound, pictures, _posterior(bound, pictures), DRAWS)

    return Detector(_nothing, _error(model), score, {"variables": variables})


def regret(model: Any, variables: Variables, steps: int = REGRET_STEPS) -> Detector:
    """Returns the detector whose score is the likelihood regret (Xiao et al. 2020, equation 6).

    That is how much the ELBO of a picture rises, in nats, when its own posterior is optimised
    instead of being what the encoder says. The mean and deviation of the posterior are optimised,
    as the paper's section 3 allows. The map is that of `reconstruction`.

    Args:
      model: a trained variational autoencoder with a Gaussian posterior.
      variables: its variables, without an axis of seeds.
      steps: the number of Adam's steps.
    """

    def score(state: State, pictures: Array, maps: Array) -> Array:
        bound = model.bind(state["variables"])
        start = _posterior(bound, pictures)
        tx = optax.adam(REGRET_RATE)

        def total(posterior: tuple[Array, Array]) -> tuple[Array, Array]:
            cost = _cost(bound, pictures, posterior, REGRET_DRAWS)
            return jnp.sum(cost), cost

        def step(carry: Any, _: None) -> tuple[Any, None]:
            posterior, opt, least = carry
            (_, cost), slope = jax.value_and_grad(total, has_aux=True)(posterior)
            updates, opt = tx.update(slope, opt, posterior)
            return (optax.apply_updates(posterior, updates), opt, jnp.minimum(least, cost)), None

        first = _cost(bound, pictures, start, REGRET_DRAWS)
        carry, _ = jax.lax.scan(step, (start, tx.init(start), first), None, steps)
        posterior, _, least = carry
        last = _cost(bound, pictures, posterior, REGRET_DRAWS)
        return first - jnp.minimum(least, last)

    return Detector(_nothing, _error(model), score, {"variables": variables})


def _posterior(bound: Any, pictures: Array) -> tuple[Array, Array]:
    """Returns the mean and log_std of q(z | x), f32[B, L] each."""
    code = bound.posterior(Batch(pictures, pictures))
    if not isinstance(code, GaussianCode) or bound.prior is None:
        raise UserError(
            f"a {type(code).__name__} is not the code of a variational autoencoder with a Gaussian "
            "posterior: use inspection.reconstruction, or train a model with ae.Gaussian and a "
            "prior"
        )
    return code.mean, code.log_std


def _cost(bound: Any, pictures: Array, posterior: tuple[Array, Array], draws: int) -> Array:
    """Returns -ELBO of each picture for given posteriors, f32[B], nats."""
    mean, log_std = posterior
    batch = Batch(pictures, pictures)
    noise = jax.random.normal(jax.random.key(0), (draws, mean.shape[-1]))

    def one(drawn: Array) -> Array:
        code = GaussianCode(mean + jnp.exp(log_std) * drawn[None], mean, log_std)
        forward = bound.explain(batch, None, code)
        kl = bound.prior.kl(code, None, bound.posterior)
        rate = losses.rate()(bound, forward) if kl is None else jnp.sum(kl, axis=-1)
        return rate + losses.distortion(bound, forward)

    return jnp.mean(jax.lax.map(one, noise), axis=0)
