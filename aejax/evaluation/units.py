"""What one unit stands for: how often it is active, for which examples most, and their labels.

    units(latents(sae, variables, test), test.labels)                # latents of a sparse code
    units(signed(latents(plain, variables, test)), test.labels)      # units of a plain autoencoder
    units(signed(project(principal(train_x, 64), test_x)), labels)   # principal components

`top_examples` finds the same of a sparse autoencoder without holding the codes of all examples:
`agreement(top_examples(sae, variables, test), test.labels)` is the first line for large codes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.data import Split
from aejax.errors import UserError
from aejax.types import Array, Batch, Variables

TOP = 20  # examples that a unit is judged by


class TopExamples(NamedTuple):
    """How often each of M units is active over N examples, and which K examples activate it most.

    A unit is active where its value is above zero; of a model, where it is not zero.
    """

    density: np.ndarray  # f64[M], the share of examples for which the unit is active
    top: np.ndarray  # i[M, K], the examples with the largest activations; largest first of a model
    strength: np.ndarray  # f[M, K], those values, |z| of a model; 0 where fewer are active
    l0: np.ndarray  # i[N], active units of each example


class Units(NamedTuple):
    """How well the top examples of each unit agree on a label."""

    entropy: np.ndarray  # f64[M], of the labels of a unit's top examples, nats; NaN: not judged
    label: np.ndarray  # i64[M], the commonest label of the top examples; -1: not judged
    mean_entropy: float  # over the judged units
    agree: float  # share of the judged units whose top examples all have one label
    judged: int  # units with at least `top` active examples
    rare: int  # units with some, but fewer
    dead: int  # units with none


def units(activations: np.ndarray, labels: np.ndarray, *, top: int = TOP) -> Units:
    """Label entropy and agreement of the top examples of each unit.

    A unit with fewer active examples than `top` is not judged: one example agrees with itself.

    Args:
      activations: f[N, M], a unit is active where its value is above zero.
      labels: integers [N].
      top: examples with the largest activation that a unit is judged by.

    Raises:
      UserError: if the shapes do not belong together.
    """
    activations, labels = np.asarray(activations), np.asarray(labels)
    if activations.ndim != 2 or labels.shape != activations.shape[:1]:
        raise UserError(
            f"activations {activations.shape} and labels {labels.shape} do not belong together: "
            "give [N, M] and [N]"
        )
    if not 1 <= top <= len(labels):
        raise UserError(f"top is {top}, but there are {len(labels)} examples: give 1 to that many")
    rows = np.argpartition(-activations, top - 1, axis=0)[:top]  # [top, M]
    strength = np.maximum(np.take_along_axis(activations, rows, axis=0), 0)
    active = activations > 0
    found = TopExamples(active.mean(axis=0), rows.T, strength.T, active.sum(axis=1))
    return agreement(found, labels)


def top_examples(
    model: Any,
    variables: Variables,
    split: Split,
    n: int = 10_000,
    top: int = TOP,
    *,
    batch: int = 500,
) -> TopExamples:
    """Runs the first n examples through a sparse autoencoder, a batch at a time.

    Args:
      model: its code has `dense() -> f32[B, M]`.
      variables: of one member.
      split: where the examples come from.
      n: how many of them at most.
      top: K, how many of the strongest examples to keep for each unit.
      batch: examples at a time.
    """

    def run(model: Any, batch: Batch) -> Array:
        # A unit that keeps signs is active, and strongly so, where it is far below zero too.
        return jnp.abs(model.posterior(batch).dense())

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
    for part in taken.batches(batch):
        if strength is None:
            shape = jax.eval_shape(lambda v, b: model.apply(v, b, method=run), variables, part)
            strength = jnp.zeros((shape.shape[1], top))
            index = jnp.zeros((shape.shape[1], top), jnp.int32)
        strength, index, active, each = step(variables, part, strength, index, jnp.asarray(start))
        counts = counts + np.asarray(active, np.int64)
        l0.append(np.asarray(each))
        start += len(each)
    density = np.asarray(counts) / start
    return TopExamples(density, np.asarray(index), np.asarray(strength), np.concatenate(l0))


def agreement(found: TopExamples, labels: np.ndarray) -> Units:
    """How well the top examples of each unit agree on a label.

    Args:
      found: of N examples.
      labels: integers [N].
    """
    present = np.unique(labels)
    top = found.top.shape[1]
    counts = np.sum(labels[found.top][..., None] == present, axis=1)  # [M, classes]
    share = counts / top
    entropy = -np.sum(share * np.log(np.where(share > 0, share, 1.0)), axis=-1)
    judged = np.all(found.strength > 0, axis=1)
    some = bool(judged.any())
    return Units(
        entropy=np.where(judged, entropy, np.nan),
        label=np.where(judged, present[np.argmax(counts, axis=-1)], -1),
        mean_entropy=float(entropy[judged].mean()) if some else float("nan"),
        agree=float(np.mean(counts[judged].max(axis=-1) == top)) if some else float("nan"),
        judged=int(judged.sum()),
        rare=int(np.sum((found.density > 0) & ~judged)),
        dead=int(np.sum(found.density == 0)),
    )


def most_used(found: TopExamples, n: int) -> np.ndarray:
    """The n units that are active for most examples, i[n]; units that never are are left out."""
    order = np.argsort(-found.density, kind="stable")
    return order[found.density[order] > 0][:n]


def most_telling(found: TopExamples, labels: np.ndarray, n: int) -> np.ndarray:
    """The n units whose top examples agree most on a label, i[n]; of equals the stronger first."""
    entropy = agreement(found, labels).entropy
    order = np.lexsort((-found.strength.mean(axis=1), entropy))
    return order[~np.isnan(entropy[order])][:n]


def signed(activations: np.ndarray) -> np.ndarray:
    """A unit that answers both ways as two that answer one way each.

    Args:
      activations: f[N, M], of units that may be negative.

    Returns:
      f[N, 2 M]: the positive parts, then the negative ones; about the units' means.
    """
    centred = activations - np.mean(activations, axis=0, dtype=np.float64)
    return np.concatenate([np.maximum(centred, 0), np.maximum(-centred, 0)], axis=-1)
