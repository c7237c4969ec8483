"""A look at a model's residual stream before a dictionary is trained: norms, sinks, kurtosis."""

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

SINK = 10.0  # a token is a sink where its norm is so many times the layer's median


class Sink(NamedTuple):
    """A kind of token whose norm stands out."""

    token: int
    position: int  # in its row
    count: int  # how often it was seen at this position as a sink
    ratio: float  # mean of its norm over the layer's median


class Survey(NamedTuple):
    """Figures of the residual stream behind each block, of the tokens seen."""

    tokens: int
    norms: np.ndarray  # f64[layers, P], mean norm at each position; NaN where no token stood
    median: np.ndarray  # f64[layers], of the norms
    share: np.ndarray  # f64[layers], of the tokens that are sinks
    # f64[layers]: E(x - mean)^4 / var^2, mean over dimensions, without sinks; 3 for a Gaussian.
    kurtosis: np.ndarray
    gamma: np.ndarray  # f64[layers], ||mean|| / ||std||, without sinks
    sinks: tuple[Sink, ...]  # at the layer that has most of them, most frequent first
    layer: int  # that layer


def survey(model: Transformer, variables: Variables, batches: Iterable[Packed]) -> Survey:
    """Reads resid_post of every block; memory holds one batch of all of them.

    Kurtosis and gamma are computed within each batch and averaged over batches.

    Args:
      model: the transformer.
      variables: its variables.
      batches: of `packs`; a few thousand tokens are enough.

    Raises:
      UserError: there is no batch.
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
        raise UserError("there is no text to look at")
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
    """Kurtosis and gamma of rows f64[n, D]."""
    mean = x.mean(axis=0)
    square = np.square(x - mean[None])
    variance = square.mean(axis=0)
    kurtosis = np.square(square).mean(axis=0) / np.maximum(np.square(variance), 1e-30)
    gamma = np.linalg.norm(mean) / np.sqrt(max(variance.sum(), 1e-30))
    return float(kurtosis.mean()), float(gamma)


def _sinks(tokens: np.ndarray, sink: np.ndarray, ratio: np.ndarray) -> tuple[Sink, ...]:
    """The kinds of sinks, by token and position."""
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
