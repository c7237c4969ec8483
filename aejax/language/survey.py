"""Statistics of a model's residual stream, to look at before a dictionary is trained on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.language.layers import PADDING
from aejax.language.llama import Transformer
from aejax.language.packing import Packed
from aejax.language.reading import reader
from aejax.types import Array, Variables

# A token is an attention sink at a layer if its norm is above this many times the layer's median.
SINK = 10.0


class Sink(NamedTuple):
    """A token id that is an attention sink at one position of a row."""

    token: int  # the token's id
    position: int  # the position in the row
    count: int  # how often the token was a sink at this position
    ratio: float  # the mean ratio of its norm to the layer's median norm


class Survey(NamedTuple):
    """Statistics of the residual stream after each block."""

    tokens: int  # the number of tokens seen
    norms: np.ndarray  # f64[layers, P], the mean norm at each position; NaN if no token was there
    median: np.ndarray  # f64[layers], the median norm
    share: np.ndarray  # f64[layers], the share of the tokens that are sinks
    # f64[layers]: the mean over dimensions of E(x - mean)^4 / var^2, without sinks; a Gaussian has
    # 3.
    kurtosis: np.ndarray
    gamma: np.ndarray  # f64[layers], ||mean|| / ||std||, without sinks
    sinks: tuple[Sink, ...]  # the sinks of `layer`, the most frequent first
    layer: int  # the layer with the most sinks


def survey(model: Transformer, variables: Variables, batches: Iterable[Packed]) -> Survey:
    """Computes statistics of the residual stream after every block.

    The kurtosis, and gamma = ||mean|| / ||std||, are computed within each batch and averaged over
    batches. Memory must hold the residual streams of all blocks for one batch.

    Args:
      model: the transformer.
      variables: its variables.
      batches: batches from `packs`; a few thousand tokens are enough.

    Raises:
      UserError: if there is no batch.
    """
    layers = model.config.layers
    hooks = tuple(f"resid_post.{i}" for i in range(layers))
    read = reader(model, variables, hooks)
    tokens, norms, shape = [], [], []
    for packed in batches:
        there = packed.position != PADDING
        seen = read(packed.tokens, packed.position)
        length = np.stack([np.asarray(_norm(seen[h]), np.float64) for h in hooks])
        length[:, ~there] = np.nan
        limit = SINK * np.nanmedian(length, axis=(1, 2), keepdims=True)
        kept = there[None] & (length <= limit)
        shape.append(
            [_shape(np.asarray(seen[h], np.float64)[k]) for h, k in zip(hooks, kept, strict=True)]
        )
        tokens.append(packed.tokens)
        norms.append(length)
    if not norms:
        raise UserError("there is no batch to survey: give at least one")
    all_norms, all_tokens = np.concatenate(norms, axis=1), np.concatenate(tokens)
    median = np.nanmedian(all_norms, axis=(1, 2))
    sink = all_norms > SINK * median[:, None, None]
    count = int(np.sum(~np.isnan(all_norms[0])))
    share = sink.sum(axis=(1, 2)) / count
    layer = int(np.argmax(share))
    kurtosis, gamma = np.mean(shape, axis=0).T
    places = np.isnan(all_norms).all(axis=1)
    sums, counts = np.nansum(all_norms, axis=1), np.sum(~np.isnan(all_norms), axis=1)
    by_position = np.where(places, np.nan, sums / np.maximum(counts, 1))
    found = _sinks(all_tokens, sink[layer], all_norms[layer] / median[layer])
    return Survey(count, by_position, median, share, kurtosis, gamma, found, layer)


def _norm(x: Array) -> Array:
    return jnp.linalg.norm(x.astype(jnp.float32), axis=-1)


def _shape(x: np.ndarray) -> tuple[float, float]:
    """Returns the mean kurtosis of the columns of x f64[n, D], and gamma = ||mean|| / ||std||."""
    mean = x.mean(axis=0)
    square = np.square(x - mean[None])
    variance = square.mean(axis=0)
    kurtosis = np.square(square).mean(axis=0) / np.maximum(np.square(variance), 1e-30)
    gamma = np.linalg.norm(mean) / np.sqrt(max(variance.sum(), 1e-30))
    return float(kurtosis.mean()), float(gamma)


def _sinks(tokens: np.ndarray, sink: np.ndarray, ratio: np.ndarray) -> tuple[Sink, ...]:
    """Counts the attention sinks by token and position, and returns the most frequent first.

    Args:
      tokens: the token ids, i32[R, P].
      sink: bool[R, P], whether each token is an attention sink.
      ratio: f[R, P], the norm of each token relative to the median norm.
    """
    rows, columns = np.nonzero(sink)
    kinds = np.stack([tokens[rows, columns], columns], axis=1)
    if not len(kinds):
        return ()
    unique, which, counts = np.unique(kinds, axis=0, return_inverse=True, return_counts=True)
    means = np.bincount(which.reshape(-1), ratio[rows, columns]) / counts
    order = np.argsort(-counts, kind="stable")
    return tuple(
        Sink(int(unique[i, 0]), int(unique[i, 1]), int(counts[i]), float(means[i])) for i in order
    )
