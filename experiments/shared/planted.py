"""Planted data, which are sparse sums of known directions, and short trainings on such data."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import aejax as ae
from aejax.dictionaries.recipe import Recipe


class Planted(NamedTuple):
    """The sizes of planted data, and of the dictionaries that are trained on it."""

    size: int  # the dimension of a token
    features: int  # the number of features, each of which has a direction
    probability: float  # the probability that a feature is active
    tokens: int  # the number of train tokens; HELD further tokens are held out
    latents: int  # the number of latents of a dictionary
    l0: float  # the target for the mean number of active latents


class Tokens(NamedTuple):
    """The activations of N tokens in two layers; a feature has one direction in each layer."""

    first: np.ndarray  # f32[N, size]
    second: np.ndarray  # f32[N, size]


HELD = 10_000  # the number of held-out tokens, with which dictionaries are evaluated
SMALL = Planted(size=32, features=64, probability=0.05, tokens=20_000, latents=128, l0=3.0)
LARGE = Planted(size=128, features=256, probability=0.02, tokens=200_000, latents=512, l0=5.0)


def plant(about: Planted, seed: int = 0) -> tuple[Tokens, Tokens]:
    """Draws train and held-out tokens.

    The direction of each feature in each layer is a random unit vector. A token is the sum of the
    directions of its active features, each multiplied by a draw from N(1, 0.3^2).
    """
    random = np.random.default_rng(seed)
    directions = random.normal(size=(2, about.features, about.size))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    parts: list[list[np.ndarray]] = [[], []]
    for count in (about.tokens, HELD):
        shape = (count, about.features)
        on = random.random(shape) < about.probability
        z = (on * (1.0 + 0.3 * random.normal(size=shape))).astype(np.float32)
        for part, own in zip(parts, directions.astype(np.float32), strict=True):
            part.append(z @ own)
    train, held = (Tokens(first, second) for first, second in zip(*parts, strict=True))
    return train, held


def as_batch(recipe: Recipe, tokens: Tokens, rows: Any = slice(None)) -> ae.Batch:
    """Returns tokens as a batch for a recipe of an autoencoder, a crosscoder or a transcoder.

    A recipe is a dictionary and its training. Its type is recognised by the decoder's output shape:
    (size,) for an autoencoder of the first layer, (2, size) for a crosscoder, and (1, size) for a
    transcoder from the first layer to the second.
    """
    first, second = jnp.asarray(tokens.first)[rows], jnp.asarray(tokens.second)[rows]
    shape = recipe.model.decoder.shape
    if isinstance(shape, int) or len(shape) == 1:
        return ae.Batch(first, first)
    if shape[0] == 2:
        both = jnp.stack([first, second], axis=1)
        return ae.Batch(both, both)
    return ae.Batch(first, second[:, None], context=first)


def fitted(
    recipe: Recipe, train: Tokens, steps: int, seeds: int = 1, size: int = 256, seed: int = 0
) -> Any:
    """Trains the models of several seeds on the same batches; returns variables [S, ...].

    Args:
      recipe: the dictionary and its training.
      train: the train tokens.
      steps: the number of steps.
      seeds: the number of models, S.
      size: the number of tokens in a batch.
      seed: the seed of the batches and of the first model.
    """
    single = ae.learner(recipe.model, recipe.objective, recipe.tx, initialise=recipe.initialise)
    learner = ae.seeds(single, seeds, shared_data=True)
    random = np.random.default_rng(seed)
    rows = jnp.asarray(random.integers(0, len(train.first), (steps, size)))
    held = jax.tree.map(jnp.asarray, train)
    keys = jnp.stack([jax.random.key(seed + i) for i in range(seeds)])
    state = jax.jit(learner.init)(keys, as_batch(recipe, held, rows[0]))

    def step(state: ae.State, own: Any) -> tuple[ae.State, Any]:
        return learner.step(state, as_batch(recipe, held, own))[0], None

    state, _ = jax.jit(lambda state: jax.lax.scan(step, state, rows))(state)
    return learner.variables(state)


class Held(NamedTuple):
    """The scores of one trained dictionary on held-out tokens."""

    l0: float  # mean number of active latents
    explained: float  # explained share of the variance, 1 - FVU
    dead: float  # share of latents that no held-out token activates


def measured(recipe: Recipe, variables: Any, tokens: Tokens) -> Held:
    """Computes the scores of one trained dictionary."""
    batch = as_batch(recipe, tokens)

    @jax.jit
    def run(variables: Any) -> tuple[Any, Any, Any]:
        forward = recipe.model.apply(variables, batch)
        return forward.prediction, forward.code.l0, forward.code.used()

    prediction, l0, used = jax.device_get(run(variables))
    target = np.asarray(batch.target, np.float64)
    total = np.sum(np.square(target - target.mean(axis=0)))
    error = np.sum(np.square(target - prediction))
    return Held(float(np.mean(l0)), float(1.0 - error / total), float(1.0 - np.mean(used)))
