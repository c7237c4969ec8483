"""What the units of a sparse code stand for: how often each fires, and for which examples most."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.data import Split
from aejax.evaluation.decoding import SIZE
from aejax.types import Array, Batch, Variables

TOP = 20  # examples a unit is judged by


class Units(NamedTuple):
    """Statistics of the m units of a sparse code over N examples."""

    density: np.ndarray  # f[m], the share of examples for which the unit is active
    top: np.ndarray  # i[m, k], the examples with the greatest activations, greatest first
    strength: np.ndarray  # f[m, k], those activations; 0 where fewer examples activate the unit
    l0: np.ndarray  # f[N], active units of each example


def units(model: Any, variables: Variables, split: Split, n: int = 10_000, top: int = TOP) -> Units:
    """Runs the first n examples through a sparse autoencoder, a batch at a time.

    Args:
      model: its code has `dense() -> f32[B, m]`.
      variables: of one member.
      split: where the examples come from.
      n: how many of them at most.
      top: k, how many of the strongest examples to keep for each unit.

    Returns:
      Units.
    """

    def run(model: Any, batch: Batch) -> Array:
        return model.posterior(batch).dense()

    @jax.jit
    def step(variables, batch, strength, index, start):
        z = model.apply(variables, batch, method=run)
        rows = jnp.broadcast_to(start + jnp.arange(z.shape[0])[None], (z.shape[1], z.shape[0]))
        pool = jnp.concatenate([strength, z.T], axis=1)
        strength, place = jax.lax.top_k(pool, top)
        index = jnp.take_along_axis(jnp.concatenate([index, rows], axis=1), place, axis=1)
        active = z > 0
        return strength, index, jnp.sum(active, axis=0), jnp.sum(active, axis=1)

    taken = split.take(n)
    strength = index = None
    counts, l0, start = 0, [], 0
    for batch in taken.batches(SIZE):
        if strength is None:
            shape = jax.eval_shape(lambda v, b: model.apply(v, b, method=run), variables, batch)
            strength = jnp.zeros((shape.shape[1], top))
            index = jnp.zeros((shape.shape[1], top), jnp.int32)
        strength, index, active, each = step(variables, batch, strength, index, jnp.asarray(start))
        counts = counts + np.asarray(active, np.int64)
        l0.append(np.asarray(each))
        start += len(each)
    density = np.asarray(counts) / start
    return Units(density, np.asarray(index), np.asarray(strength), np.concatenate(l0))


def label_entropy(found: Units, labels: np.ndarray) -> np.ndarray:
    """The entropy in nats of the labels of each unit's top examples.

    Args:
      found: of N examples.
      labels: i[N].

    Returns:
      f[m]; 0 where all top examples share one label, NaN for units that fewer than k examples
      activate.
    """
    chosen = labels[found.top]
    present = np.unique(labels)
    share = (chosen[..., None] == present).mean(axis=1)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)
    return np.where((found.strength > 0).all(axis=1), entropy, np.nan)


def most_used(found: Units, n: int) -> np.ndarray:
    """The n units that fire for most examples, i[n]; units that never fire are left out."""
    order = np.argsort(-found.density, kind="stable")
    return order[found.density[order] > 0][:n]


def most_telling(found: Units, labels: np.ndarray, n: int) -> np.ndarray:
    """The n units whose top examples agree most on a label, i[n]; of equals the stronger first."""
    entropy = label_entropy(found, labels)
    order = np.lexsort((-found.strength.mean(axis=1), entropy))
    return order[~np.isnan(entropy[order])][:n]
