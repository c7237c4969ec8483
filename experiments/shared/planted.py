"""Planted data, sparse sums of known directions, and a short training of a recipe on them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import aejax as ae
from aejax.dictionaries.recipe import Recipe


class Planted(NamedTuple):
    """A size of planted data, and of the dictionaries that are trained on them."""

    size: int  # dimensions of a token
    features: int  # number of directions
    probability: float  # the probability with which a direction is on
    tokens: int  # number of train tokens; as many as HELD more are held out
    latents: int  # latents of a dictionary
    l0: float  # the number of active latents that is asked for


class Tokens(NamedTuple):
    """Tokens in two layers, which the same features write into in different directions."""

    first: np.ndarray  # f32[N, size]
    second: np.ndarray  # f32[N, size]


HELD = 10_000  # number of tokens on which L0 and explained variance are measured
SMALL = Planted(size=32, features=64, probability=0.05, tokens=20_000, latents=128, l0=3.0)
LARGE = Planted(size=128, features=256, probability=0.02, tokens=200_000, latents=512, l0=5.0)


def plant(about: Planted, seed: int = 0) -> tuple[Tokens, Tokens]:
    """Draws train and held-out tokens.

    Each feature has a random unit direction in each layer, is on with its probability, and has a
    magnitude of 1 +- 0.3 (normal) when it is.
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
    """Makes the batch that a recipe trains on: an autoencoder's, a crosscoder's or a transcoder's.

    The dictionary's shape and skip connection tell which: (2, size) is a crosscoder, (1, size) a
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
    """Trains members of a recipe side by side on the same batches; variables with leaves [S]."""
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
    """What a member does on held-out tokens."""

    l0: float  # mean number of active latents
    explained: float  # share of the variance that it explains, 1 - FVU
    dead: float  # share of latents that no held-out token activates


def measured(recipe: Recipe, variables: Any, tokens: Tokens) -> Held:
    """Measures one member, with its thresholds as trained."""
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
