"""Anomalies as patches that a few atoms of a dictionary of good patches do not reconstruct."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax.data import Batches, arrays
from aejax.data.split import Split
from aejax.dictionaries import recipes
from aejax.dictionaries.folding import fold
from aejax.dictionaries.plain import Plain, decode, encode
from aejax.inspection.detector import Detector, Features, State, by_position
from aejax.training.compiled import compiled
from aejax.training.learner import learner
from aejax.training.loop import loop
from aejax.training.wrappers import chunked, swept
from aejax.types import Array, Key

ROWS = 50_000  # patches of good pictures on which a dictionary is trained
USED = 10_000  # patches from which it is counted how often each atom is used
BATCH, CHUNK = 512, 200  # patches in a batch, and steps in one compiled call


def sparse(features: Features, latents: int = 512, k: int = 8, steps: int = 1_000) -> Detector:
    """Returns the detector whose map is the squared residual of a TopK dictionary of features.

    A dictionary with many active latents reconstructs anomalies too, and one with few does not
    reconstruct good patches: `sparse_sweep` fits several k at once, to compare them.

    Args:
      features: the features of patches (see `aejax.inspection.features`).
      latents: the number of atoms.
      k: the number of active latents of a patch.
      steps: the number of training steps.
    """

    def fit(key: Key, good: np.ndarray) -> State:
        return sparse_sweep(features, (k,), latents, steps)(key, good)[0]

    def residual(state: State, pictures: Array) -> Array:
        x = features.apply(state["features"], pictures)
        plain = dictionary(state)
        rest = x - decode(plain, encode(plain, x.reshape(-1, x.shape[-1]))).reshape(x.shape)
        return jnp.sum(jnp.square(rest), axis=-1)

    return Detector(fit, residual, given={"features": features.arrays})


def sparse_sweep(
    features: Features, k: Sequence[int], latents: int = 512, steps: int = 1_000
) -> Callable[[Key, np.ndarray], list[dict[str, Any]]]:
    """Returns the function (key, good pictures) -> the states of `sparse` for several k.

    The dictionaries are trained together in one program on the same batches.

    Args:
      features, latents, steps: as in `sparse`.
      k: the numbers of active latents.
    """

    def fit(key: Key, good: np.ndarray) -> list[dict[str, Any]]:
        found = by_position(features, good)
        rows = found.reshape(-1, found.shape[-1])
        chosen = np.asarray(jax.random.permutation(key, len(rows)))[:ROWS]
        train = arrays(rows[chosen], validation=0, test=0)[0]
        return _trained(train, key, k, latents, steps)

    return fit


def _trained(
    train: Split, key: Key, k: Sequence[int], latents: int, steps: int
) -> list[dict[str, Any]]:
    room, event = max(k), train.event

    def one(active: Any) -> Any:
        recipe = recipes.topk(event, latents, room, active=active, steps=steps)
        made = learner(recipe.model, recipe.objective, recipe.tx, initialise=recipe.initialise)
        return chunked(made, min(CHUNK, steps))

    together = compiled(swept(one, jnp.asarray(k, jnp.float32)))
    batches = Batches(
        train, min(BATCH, len(train)), seed=int(jax.random.randint(key, (), 0, 2**31 - 1))
    )
    state = together.init(jnp.stack([key] * len(k)), batches[0])
    variables = together.variables(state)
    for trained, _ in loop(together, state, batches, steps, progress=False):
        variables = together.variables(trained)
    states = []
    for i, active in enumerate(k):
        own = jax.tree.map(lambda leaf, i=i: leaf[i], variables)
        plain = fold(recipes.topk(event, latents, int(active)).model, own)
        names = ("W_enc", "W_dec", "b_enc", "b_dec")
        states.append({name: np.asarray(getattr(plain, name)) for name in names})
        some = train.arrays["x"][:USED]
        usage = np.mean(np.asarray(encode(plain._replace(k=int(active)), some)) > 0, axis=0)
        states[-1]["usage"] = usage.astype(np.float32)
        # The shape of an array says how many latents are active, so that it is known to jit.
        states[-1]["active"] = np.zeros(int(active), np.int8)
    return states


def dictionary(state: State) -> Plain:
    """Returns the plain weights of a state of `sparse`."""
    weights = {name: state[name] for name in ("W_enc", "W_dec", "b_enc", "b_dec")}
    return Plain(activation="topk", k=int(state["active"].shape[0]), **weights)


def explain(
    features: Features, state: State, pictures: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the codes of the patches of a few pictures, and their squared residuals.

    `state["usage"]` says what share of good patches uses each atom, to compare with.

    Args:
      features: the features of the detector.
      state: its state.
      pictures: u8[M, H, W, C].

    Returns:
      The activations f32[M, h, w, latents], and the residuals f32[M, h, w].
    """
    x, plain = jnp.asarray(by_position(features, pictures)), dictionary(state)
    codes = encode(plain, x.reshape(-1, x.shape[-1]))
    rest = x - decode(plain, codes).reshape(x.shape)
    grid = x.shape[:3]
    return np.asarray(codes).reshape((*grid, -1)), np.asarray(jnp.sum(jnp.square(rest), axis=-1))
