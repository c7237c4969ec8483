"""A wrapper of a training function that restarts dead latents at badly explained inputs."""

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
from aejax.variables import AGE, ATOMS, BIAS, KERNEL, Path, ending, get, put, unpacked


def resampled(
    learner: Learner,
    model: Any,
    every: int = 25_000,
    dead_after: int | None = None,
    power: float = 1.0,
    share: float = 0.2,
) -> Learner:
    """Returns a training function that also restarts dead latents at inputs with a large error.

    It does so every `every` steps. For each dead latent an input of the batch is drawn with
    probability proportional to ||residual||^power.
    The latent's atom becomes the direction of the input's target, with the mean norm of the living
    atoms. Its encoder column becomes the direction of the input, with `share` times the mean norm
    of the living latents' columns, and its bias becomes 0. A threshold or magnitude parameter
    returns to its initial value. The optimiser's moments of these entries and the latent's age
    become 0 (Bricken et al. 2023, appendix). Apply this wrapper first: `averaged`, `seeds` and
    `chunked` go around it.

    Args:
      learner: the training function of one model, without `seeds` or `chunked`.
      model: the Autoencoder that the learner trains, with a sparse bottleneck and a Dictionary.
      every: steps between two resamplings.
      dead_after: steps without activation after which a latent is dead; None: half of `every`.
      power: exponent of the residual's norm: 1 in dictionary_learning, 2 in the paper.
      share: norm of a restarted encoder column, as a share of the living latents' mean norm.

    Returns:
      A Learner with one more metric, `resampled`: the number of latents restarted in the step.

    Raises:
      UserError: if the learner is `chunked` or has `seeds`, or if every < 1.
    """
    if learner.chunk is not None or learner.seeds is not None:
        raise UserError(
            "resampled needs a learner of single steps and one model, but this one is chunked or "
            "has seeds: write seeds(chunked(resampled(...)))"
        )
    if every < 1:
        raise UserError(
            f"every is {every}, but it is the number of steps between resamplings: give 1 or more"
        )
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
    variables = unpacked(state.params, state.memory)
    silent, seen, wanted, error = model.apply(variables, batch, method=_candidates)
    dead = silent > silence
    # Inverting the cumulative distribution draws m inputs without an [m, B] array.
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
    """Returns what the resampling of dead latents needs of a batch of B examples.

    Returns:
      The latents' ages i32[m], the encoder's inputs f32[B, d], the targets minus the decoder's bias
      in scaled units f32[B, D], and the squared errors f32[B].
    """
    silent, decoder, forward = ages(model), dictionary(model), model(batch)
    seen = model.bottleneck.inputs(forward.features, decoder)
    bias = decoder.weights(model.bottleneck.latents).bias
    rows = jnp.broadcast_to(bias[None], (seen.shape[0], bias.shape[0]))
    wanted = decoder.measure(batch.target - decoder.finish(rows, batch.context), batch.context)
    return silent, seen, wanted, scaled_error(model, forward)


def _set(path: Any, leaf: Any, dead: Array, fresh: dict[Path, Array]) -> Any:
    """Replaces the entries of dead latents in a leaf of the state, if it is a latents' parameter.

    Args:
      path: the path of the leaf.
      leaf: the leaf.
      dead: whether each latent is dead, bool[m].
      fresh: path of a parameter -> its new values; other leaves are returned unchanged.
    """
    name = "/" + jax.tree_util.keystr(path, simple=True, separator="/")
    for own, value in fresh.items():
        if re.search("/" + ending(own), name) and jnp.shape(leaf) == value.shape:
            mask = dead[None] if own == KERNEL else dead[:, None] if own == ATOMS else dead
            return jnp.where(mask, value, leaf)
    return leaf


def _directions(vectors: Array) -> Array:
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _mean_norm(rows: Array, alive: Array) -> Array:
    """Computes the mean norm of the living rows, or of all rows if none is alive, f32[]."""
    lengths = jnp.linalg.norm(rows, axis=-1)
    count = jnp.sum(alive)
    living = jnp.sum(jnp.where(alive, lengths, 0.0)) / jnp.maximum(count, 1)
    return jnp.where(count > 0, living, jnp.mean(lengths))
