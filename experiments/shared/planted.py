"""Planted data, which are sparse sums of known directions, and short trainings on such data."""

from __future__ import annotations

from collections.abc import Callable
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

    The direction of each feature in each layer is a random unit vector. In each layer, a token is
    the sum of that layer's directions of its active features, each multiplied by a draw from
    N(1, 0.3^2), which is the same in both layers.
    """
    random = np.random.default_rng(seed)
    directions = _directions(about, random)
    parts: list[list[np.ndarray]] = [[], []]
    for count in (about.tokens, HELD):
        shape = (count, about.features)
        on = random.random(shape) < about.probability
        z = (on * (1.0 + 0.3 * random.normal(size=shape))).astype(np.float32)
        for part, own in zip(parts, directions, strict=True):
            part.append(z @ own)
    train, held = (Tokens(first, second) for first, second in zip(*parts, strict=True))
    return train, held


def _directions(about: Planted, random: np.random.Generator) -> np.ndarray:
    """Draws the unit directions of all features in both layers, f32[2, features, size]."""
    directions = random.normal(size=(2, about.features, about.size))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    return directions.astype(np.float32)


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


def fitting(
    recipe: Recipe, steps: int, seeds: int = 1, size: int = 256, seed: int = 0
) -> Callable[[Tokens], Any]:
    """Returns the function train tokens -> trained variables, leaves [S, ...]; it compiles once.

    Args:
      recipe: the dictionary and its training.
      steps: the number of steps.
      seeds: the number of models, S, all of which are trained on the same batches.
      size: the number of tokens in a batch.
      seed: the seed of the batches and of the first model.
    """
    single = ae.learner(recipe.model, recipe.objective, recipe.tx, initialise=recipe.initialise)
    learner = ae.seeds(single, seeds, shared_data=True)

    @jax.jit
    def trained(keys: Any, train: Tokens, rows: Any) -> ae.State:
        def step(state: ae.State, own: Any) -> tuple[ae.State, Any]:
            return learner.step(state, as_batch(recipe, train, own))[0], None

        state = learner.init(keys, as_batch(recipe, train, rows[0]))
        return jax.lax.scan(step, state, rows)[0]

    def fit(train: Tokens) -> Any:
        rows = np.random.default_rng(seed).integers(0, len(train.first), (steps, size))
        keys = jnp.stack([jax.random.key(seed + i) for i in range(seeds)])
        return learner.variables(trained(keys, train, jnp.asarray(rows)))

    return fit


def scaled(tokens: Tokens, factor: float) -> Tokens:
    """Returns the tokens with all activations multiplied by a factor."""
    return Tokens(*(factor * part for part in tokens))


class Held(NamedTuple):
    """The scores of one trained dictionary on held-out tokens."""

    l0: float  # mean number of active latents
    explained: float  # explained share of the variance, 1 - FVU
    dead: float  # share of latents that no held-out token activates


def measured(recipe: Recipe, variables: Any, tokens: Tokens) -> Held:
    """Computes the scores of one trained dictionary on tokens that it was not trained on."""
    batch = as_batch(recipe, tokens)
    forward = jax.device_get(_pass(recipe)(variables, batch))
    return Held(
        float(np.mean(forward.l0)),
        _explained(batch.target, forward.prediction),
        float(1.0 - np.mean(forward.z.any(axis=0))),
    )


def refitted(recipe: Recipe, variables: Any, train: Tokens, tokens: Tokens) -> float:
    """Computes the explained variance after decoder and bias are fitted again by least squares.

    The codes stay as they are. A penalty on their size shrinks the codes; the explained variance of
    the best decoder for them shows how much of the error is due to this shrinking.

    Args:
      recipe: the dictionary.
      variables: the variables of one model.
      train: the tokens to which the decoder is fitted, of which the first 20,000 are used.
      tokens: the tokens on which the explained variance is computed.
    """
    seen, scored = (as_batch(recipe, part, slice(20_000)) for part in (train, tokens))
    run = _pass(recipe)
    before, after = (jax.device_get(run(variables, batch)) for batch in (seen, scored))
    # The prediction is linear in the codes: the refit adds to it what they explain of the error.
    error = np.asarray(seen.target - before.prediction).reshape(len(before.z), -1)
    change = np.linalg.lstsq(_with_ones(before.z), error, rcond=1e-6)[0]
    added = (_with_ones(after.z) @ change).reshape(after.prediction.shape)
    return _explained(scored.target, after.prediction + added)


def lasso(about: Planted, tokens: Tokens, seed: int = 0) -> dict[str, float]:
    """Computes what nonnegative lasso codes explain with the true directions as atoms.

    The lasso codes of a token minimise its squared error plus a penalty on the sum of the code, as
    a ReLU encoder with an L1 penalty does approximately. The weight of the penalty is the one with
    which about.l0 latents are active on average.

    Args:
      about: the sizes of the data.
      tokens: the tokens, of which the first 2,000 are encoded.
      seed: the seed with which `plant` drew them.
    """
    from sklearn.decomposition import sparse_encode

    atoms = _directions(about, np.random.default_rng(seed))[0].astype(np.float64)
    x = np.asarray(tokens.first[:2_000], np.float64)

    def codes(penalty: float) -> np.ndarray:
        return sparse_encode(x, atoms, algorithm="lasso_cd", alpha=penalty, positive=True)

    # The smaller the penalty, the more latents are active: bisection finds the one for about.l0.
    small, large = 0.01, 1.0
    for _ in range(12):
        middle = (small * large) ** 0.5
        active = np.mean(np.sum(codes(middle) > 0.0, axis=1))
        small, large = (middle, large) if active > about.l0 else (small, middle)
    z = codes(large)
    return {
        "l0": float(np.mean(np.sum(z > 0.0, axis=1))),
        "explained_variance": _explained(x, z @ atoms),
    }


class _Pass(NamedTuple):
    """What a forward pass of a dictionary computes for N tokens."""

    prediction: Any  # f32[N, ...]
    l0: Any  # f32[N]
    z: Any  # f32[N, m]


def _pass(recipe: Recipe) -> Callable[[Any, ae.Batch], _Pass]:
    @jax.jit
    def run(variables: Any, batch: ae.Batch) -> _Pass:
        forward = recipe.model.apply(variables, batch)
        return _Pass(forward.prediction, forward.code.l0, forward.code.dense())

    return run


def _explained(target: Any, prediction: Any) -> float:
    """Computes the explained share of the variance, 1 - FVU."""
    target = np.asarray(target, np.float64)
    total = np.sum(np.square(target - target.mean(axis=0)))
    return float(1.0 - np.sum(np.square(target - prediction)) / total)


def _with_ones(codes: np.ndarray) -> np.ndarray:
    return np.concatenate([codes, np.ones((len(codes), 1), codes.dtype)], axis=1)
