"""A wrapper of learners: silent latents of a dictionary start again from badly explained inputs."""

from __future__ import annotations

import re
import zlib
from typing import Any

import jax
import jax.numpy as jnp

from aejax.errors import UserError
from aejax.losses.scaled import scaled_error
from aejax.losses.sparsity import ages, dictionary
from aejax.types import Array, Batch, Key, Learner, Metrics, State
from aejax.variables import AGE, ATOMS, BIAS, KERNEL, Path, ending, get, put


def resampled(
    learner: Learner,
    model: Any,
    every: int = 25_000,
    dead_after: int | None = None,
    power: float = 1.0,
    share: float = 0.2,
) -> Learner:
    """Every so many steps dead latents point at inputs of the batch that are explained worst.

    An input is drawn with a probability proportional to its error^power. The latent's atom becomes
    its direction, with the mean norm of living atoms; its encoder the same direction with `share`
    of their mean norm, and a bias of 0; a threshold or magnitude of its own becomes that of the
    start; the optimiser's moments of these entries become 0, and the
    latent's age too (Bricken et al. 2023, appendix). To wrap the learner itself, inside `averaged`,
    `seeds` and `chunked`.

    Args:
      learner: of one member and single steps.
      model: the Autoencoder that it trains, with a sparse bottleneck and a Dictionary.
      every: steps between two resamplings.
      dead_after: steps of silence after which a latent is dead; None: half of `every`.
      power: 1 takes the norm of the residual (dictionary_learning), 2 its square (the paper).
      share: of the living latents' mean encoder norm.

    Returns:
      A Learner with one more metric: `resampled`, how many latents started again.

    Raises:
      UserError: around `chunked` or `seeds`, or if every < 1.
    """
    if learner.chunk is not None or learner.seeds is not None:
        raise UserError(
            "resampled wraps single steps of one member: write seeds(chunked(resampled(...)))"
        )
    if every < 1:
        raise UserError(f"every is {every}, but resampling needs at least one step between")
    silence = every // 2 if dead_after is None else dead_after

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), _SALT)
        new, metrics = learner.step(state, batch)
        new, count = jax.lax.cond(
            new.step % every == 0,
            lambda new: _resample(model, new, batch, key, silence, power, share),
            lambda new: (new, jnp.zeros(())),
            new,
        )
        return new, {**metrics, "resampled": count}

    return learner._replace(step=step)


_SALT = zlib.crc32(b"resampled")


def _resample(
    model: Any, state: State, batch: Batch, key: Key, silence: int, power: float, share: float
) -> tuple[State, Array]:
    variables = {"params": state.params, "memory": state.memory}
    silent, seen, wanted, error = model.apply(variables, batch, method=_candidates)
    dead = silent > silence
    # By the inverse of the distribution function: m draws without an [m, B] array.
    reach = jnp.cumsum(error ** (power / 2))
    drawn = jnp.searchsorted(reach, jax.random.uniform(key, dead.shape) * reach[-1])
    drawn = jnp.minimum(drawn, error.shape[0] - 1)
    encoders, atoms = get(variables, KERNEL), get(variables, ATOMS)
    columns = _directions(seen)[drawn].T * (share * _mean_norm(encoders.T, ~dead))
    rows = _directions(wanted)[drawn] * _mean_norm(atoms, ~dead)
    fresh: dict[Path, Array] = {KERNEL: columns, BIAS: jnp.zeros(dead.shape), ATOMS: rows}
    for name, value in model.bottleneck.fresh().items():
        fresh["params", "bottleneck", name] = jnp.full(dead.shape, value)
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: _set(path, leaf, dead, fresh), state.params
    )
    nothing = jax.tree.map(jnp.zeros_like, fresh)
    opt = jax.tree_util.tree_map_with_path(
        lambda path, leaf: _set(path, leaf, dead, nothing), state.opt
    )
    memory = put(state.memory, AGE[1:], jnp.where(dead, 0, silent))
    return state._replace(params=params, opt=opt, memory=memory), jnp.sum(dead).astype(jnp.float32)


def _candidates(model: Any, batch: Batch) -> tuple[Array, Array, Array, Array]:
    """Ages, what the encoder sees, what the atoms explain, each example's squared error."""
    silent, decoder, forward = ages(model), dictionary(model), model(batch)
    seen = model.bottleneck.inputs(forward.features, decoder)
    bias = decoder.weights(model.bottleneck.latents).bias
    zero = decoder.finish(jnp.broadcast_to(bias[None], (seen.shape[0], bias.shape[0])))
    return silent, seen, decoder.measure(batch.target - zero), scaled_error(model, forward)


def _set(path: Any, leaf: Any, dead: Array, fresh: dict[Path, Array]) -> Any:
    """The leaf with its dead latents' entries replaced, wherever it is one of `fresh`."""
    name = "/" + jax.tree_util.keystr(path, simple=True, separator="/")
    for own, value in fresh.items():
        if re.search("/" + ending(own), name) and jnp.shape(leaf) == value.shape:
            mask = dead[None] if own == KERNEL else dead[:, None] if own == ATOMS else dead
            return jnp.where(mask, value, leaf)
    return leaf


def _directions(vectors: Array) -> Array:
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _mean_norm(rows: Array, alive: Array) -> Array:
    """The mean norm of living rows; of all, where none lives."""
    lengths = jnp.linalg.norm(rows, axis=-1)
    count = jnp.sum(alive)
    living = jnp.sum(jnp.where(alive, lengths, 0.0)) / jnp.maximum(count, 1)
    return jnp.where(count > 0, living, jnp.mean(lengths))
