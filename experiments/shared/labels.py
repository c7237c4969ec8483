"""Conditional generation of digits: sampling given a label, and changing a digit's label.

If the label of a digit is changed, its style should stay the same. The style is measured by two
numbers, the ink (the sum of the pixels) and the slant.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import aejax as ae
from aejax import evaluation
from aejax.data import Split, changed, changes
from aejax.evaluation import generation
from aejax.types import Array, Batch, Key, Variables
from experiments.shared import recognition
from experiments.shared.images import pictures


def ink(images: np.ndarray) -> np.ndarray:
    """Returns the sum of the pixels of each image of f[N, H, W, 1], f64[N]."""
    return images.sum(axis=(1, 2, 3), dtype=np.float64)


def slant(images: np.ndarray) -> np.ndarray:
    """Returns the slant of each image, f64[N]: the shift to the right per row upwards, in pixels.

    It is computed from the second moments of the pixel values of images f[N, H, W, 1].
    """
    weights = images[..., 0].astype(np.float64)
    total = np.maximum(weights.sum(axis=(1, 2)), 1e-9)
    rows, columns = (np.arange(size, dtype=np.float64) for size in images.shape[1:3])
    y = (weights.sum(axis=2) @ rows) / total
    x = (weights.sum(axis=1) @ columns) / total
    dy = rows[None] - y[:, None]
    dx = columns[None] - x[:, None]
    across = np.einsum("nhw,nh,nw->n", weights, dy, dx) / total
    along = np.einsum("nhw,nh->n", weights, np.square(dy)) / total
    return -across / np.maximum(along, 1e-9)


def correlation_within(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> float:
    """Returns the correlation of x and y within groups: the mean of each group is subtracted.

    Args:
      x: f[N].
      y: f[N].
      groups: i[N], the group of each entry.
    """
    count = np.maximum(np.bincount(groups), 1)
    x, y = (v - (np.bincount(groups, v) / count)[groups] for v in (x, y))
    return float(np.sum(x * y) / np.sqrt(np.sum(np.square(x)) * np.sum(np.square(y))))


def samples(model: ae.Autoencoder, variables: Variables, key: Key, count: int) -> np.ndarray:
    """Draws `count` latents given each label and returns decoded means, f32[10, count, *event]."""

    def run(bound: Any, key: Key, label: Array) -> Array:
        context = jnp.tile(jax.nn.one_hot(label, 10)[None], (count, 1))
        return bound.mean(bound.sample(key, count, context))

    drawn = jax.jit(lambda key, label: model.apply(variables, key, label, method=run))
    return np.stack([np.asarray(drawn(jax.random.fold_in(key, i), i)) for i in range(10)])


def by_label(
    classifier: recognition.Classifier, draws: np.ndarray, real: np.ndarray, labels: np.ndarray
) -> dict[str, dict[str, float]]:
    """Computes how many samples of each label a classifier recognises, and how diverse they are.

    Args:
      classifier: the trained classifier.
      draws: f32[10, count, *event], samples given each label.
      real: f32[N, *event], test images.
      labels: i[N], the labels of the test images.

    Returns:
      "label 0" to "label 9" and "total" -> name of a score -> value. A spread is the mean distance
      between two samples or, if its name ends in "_real", between two real images.
    """
    rows: dict[str, dict[str, float]] = {}
    shares = []
    for label, drawn in enumerate(draws):
        true = real[labels == label][: len(drawn)]
        spreads = {}
        for name, read in (("pixels", _flat), ("classifier", classifier.features)):
            spreads[name] = [
                generation.spread(generation.taken(read, images)) for images in (drawn, true)
            ]
        shares.append(float(recognition.recognised(classifier, drawn, label).mean()))
        rows[f"label {label}"] = {
            "recognised": shares[-1],
            "pixel_spread": spreads["pixels"][0],
            "pixel_spread_real": spreads["pixels"][1],
            "classifier_spread": spreads["classifier"][0],
            "classifier_spread_real": spreads["classifier"][1],
        }
    flat = draws.reshape(-1, *draws.shape[2:])
    chosen = np.random.default_rng(0).permutation(len(flat))[: len(real)]
    quality = evaluation.quality(classifier.features, real, flat[chosen])
    rows["total"] = {
        "recognised": float(np.mean(shares)),
        "recognised_least": float(np.min(shares)),
        "classifier_frechet": quality.frechet,
        "classifier_kernel": quality.kernel,
        "precision": quality.precision,
        "recall": quality.recall,
    }
    return rows


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def relabelled(
    model: ae.Autoencoder, variables: Variables, classifier: Any, test: Split, count: int = 1_000
) -> dict[str, float]:
    """Changes the labels of test images, and computes scores of the changed images.

    The score `set_label_recognised` is the share of changed images that are recognised as the new
    label. `ink_kept` and `slant_kept` are the correlations of the style before and after the
    change. They are computed within each pair of old and new label, so that differences between
    the digits themselves do not matter.
    """
    some = test.take(count)
    old = np.asarray(some.labels)
    turned = relabel(model, variables, _whole(changed(some, changes.Labels(10))))
    new = np.broadcast_to(np.arange(10), (len(old), 10))
    moved = new != old[:, None]
    images = turned[moved]
    right = recognition.recognised(classifier, images, new[moved])
    pairs = 10 * np.broadcast_to(old[:, None], new.shape)[moved] + new[moved]
    before = np.repeat(pictures(some), 9, axis=0)
    kept = {
        f"{name}_kept": correlation_within(measure(before), measure(images), pairs)
        for name, measure in (("ink", ink), ("slant", slant))
    }
    return {"set_label_recognised": float(right.mean()), **kept}


def relabel(model: ae.Autoencoder, variables: Variables, batch: Batch) -> np.ndarray:
    """Encodes the images of a batch and decodes them given each label, f32[B, 10, *event].

    The flow prior given the true label maps a code to standard normal noise, and the prior given
    the new label maps this noise back to a code. The code itself cannot be used, because it depends
    on the label.
    """

    def run(bound: Any, batch: Batch) -> Array:
        noise, _ = bound.prior.noise(bound.encode(batch), batch.context)
        noise = jnp.repeat(noise, 10, axis=0)
        context = jnp.tile(jnp.eye(10), (batch.x.shape[0], 1))
        return bound.mean(bound.decode(bound.prior.latent(noise, context), context))

    turned = np.asarray(jax.jit(lambda v, b: model.apply(v, b, method=run))(variables, batch))
    return turned.reshape(-1, 10, *turned.shape[1:])


def _whole(split: Split) -> Batch:
    return next(split.batches(len(split)))
