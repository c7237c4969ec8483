"""Relates units (latents) to labels: how often a unit is active, and for examples of which label.

    units(latents(sae, variables, test), test.labels)                # latents of a sparse code
    units(signed(latents(absolute, variables, test)), test.labels)   # latents of either sign
    units(signed(centred(latents(plain, variables, test))), labels)  # units of a dense autoencoder
    units(signed(project(principal(train_x, 64), test_x)), labels)   # principal components

For large codes, `agreement(top_examples(sae, variables, test), test.labels)` computes the result of
the first line without keeping the codes of all examples in memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.data import Split
from aejax.errors import UserError
from aejax.types import Array, Batch, Variables

TOP = 20  # the number of top examples whose labels are compared for each unit


class TopExamples(NamedTuple):
    """How often each of M units is active for N examples, and its K strongest examples.

    If the function `units` computed it, a unit is active if its value is above zero, and the K
    examples are not sorted. If `top_examples` computed it, a unit is active if its value is not
    zero, and the K examples are sorted by activation, largest first.
    """

    frequency: np.ndarray  # f64[M], the share of examples for which the unit is active
    top: np.ndarray  # i[M, K], the indices of the examples with the largest activations
    strength: np.ndarray  # f[M, K], the activations of these examples; 0 where not active
    l0: np.ndarray  # i[N], the number of active units of each example


class Units(NamedTuple):
    """How well the labels of each unit's K strongest examples agree.

    Units that are active for fewer than K examples are not judged: they have no entropy and no
    label, and the means leave them out.
    """

    entropy: np.ndarray  # f64[M], nats, the entropy of the K examples' labels; NaN if not judged
    label: np.ndarray  # i64[M], the most frequent label of the K examples; -1 if not judged
    mean_entropy: float  # nats, the mean entropy of the judged units
    agree: float  # the share of judged units whose K examples all have the same label
    judged: int  # the number of units that are active for at least K examples
    rare: int  # the number of units that are active for fewer examples
    dead: int  # the number of units that are active for no example


def units(activations: np.ndarray, labels: np.ndarray, *, top: int = TOP) -> Units:
    """Computes how well the labels of each unit's strongest examples agree.

    A unit that is active for fewer than `top` examples gets no entropy and no label, because the
    labels of a few examples may agree by chance.

    Args:
      activations: f[N, M]; a unit is active if its value is above zero.
      labels: i[N], the labels of the examples.
      top: K, the number of strongest examples of each unit whose labels are compared.

    Raises:
      UserError: if the arrays are not [N, M] and [N], or top is not between 1 and N.
    """
    activations, labels = np.asarray(activations), np.asarray(labels)
    if activations.ndim != 2 or labels.shape != activations.shape[:1]:
        raise UserError(
            f"activations have shape {activations.shape} and labels {labels.shape}: give [N, M] "
            "and [N], for the same N examples"
        )
    if not 1 <= top <= len(labels):
        raise UserError(
            f"top is {top}, but there are {len(labels)} examples: give a number from 1 to "
            f"{len(labels)}"
        )
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
    """Finds the K examples that activate each unit of a sparse autoencoder most strongly.

    The strength of an activation is its absolute value. Only one batch is in memory at a time.

    Args:
      model: a model whose code has `dense() -> f32[B, M]`.
      variables: the variables of one model, without a leading axis of seeds.
      split: the split that holds the examples.
      n: the number of examples to encode, starting with the first.
      top: K, the number of strongest examples to keep for each unit.
      batch: the number of examples at a time.
    """

    def run(model: Any, batch: Batch) -> Array:
        # A unit of either sign is also strongly active if it is far below zero.
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
    frequency = np.asarray(counts) / start
    return TopExamples(frequency, np.asarray(index), np.asarray(strength), np.concatenate(l0))


def agreement(found: TopExamples, labels: np.ndarray) -> Units:
    """Computes how well the labels of each unit's strongest examples agree.

    Args:
      found: the strongest examples of each unit.
      labels: i[N], the labels of the examples.
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
        rare=int(np.sum((found.frequency > 0) & ~judged)),
        dead=int(np.sum(found.frequency == 0)),
    )


def most_used(found: TopExamples, n: int) -> np.ndarray:
    """Returns the indices of the n units that are active most often, i[n], without dead units."""
    order = np.argsort(-found.frequency, kind="stable")
    return order[found.frequency[order] > 0][:n]


def most_telling(found: TopExamples, labels: np.ndarray, n: int) -> np.ndarray:
    """Returns the indices of the n units whose strongest examples agree most on a label, i[n].

    Among units that agree equally, those with the larger mean activation come first.
    """
    entropy = agreement(found, labels).entropy
    order = np.lexsort((-found.strength.mean(axis=1), entropy))
    return order[~np.isnan(entropy[order])][:n]


def signed(activations: np.ndarray) -> np.ndarray:
    """Splits each unit, which may be negative, into two units: its positive and its negative part.

    Where a unit is 0, both parts are 0. The units of a dense autoencoder have nonzero means, so
    subtract these first: `signed(centred(activations))`.

    Args:
      activations: f[N, M], the values of the units.

    Returns:
      f[N, 2 M]: the positive parts of the units, and then the negative parts.
    """
    return np.concatenate([np.maximum(activations, 0), np.maximum(-activations, 0)], axis=-1)


def centred(activations: np.ndarray) -> np.ndarray:
    """Returns f[N, M] minus the mean of each unit; do not use it for sparse codes with zeros."""
    return activations - np.mean(activations, axis=0, dtype=np.float64)
