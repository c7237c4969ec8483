"""A small classifier of the data itself: what recognises samples, and whose features compare them.

It is a part like any other, an autoencoder whose target is the label, trained on real images alone.
Distances of its features are called classifier distances, never FID.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import aejax as ae
from aejax.data import Split, changed, changes
from aejax.evaluation.generation import Features
from aejax.types import Array, Batch, Variables
from experiments.shared.training import Part

FEATURES = 64


class Classifier(NamedTuple):
    """Its two readings of images f[B, *event]."""

    features: Features  # f[B, FEATURES], of the layer before the last hidden one
    probabilities: Features  # f[B, classes]


def part(classes: int, steps: int) -> Part:
    """Two strided convolutional stages, then dense layers."""
    model = ae.Autoencoder(
        ae.nets.Conv((16, 32), 128),
        ae.Point(FEATURES),
        ae.nets.MLP((FEATURES,), shape=(classes,)),
        likelihood=ae.likelihoods.Categorical(classes),
    )
    return Part(
        model,
        ae.reconstruction(),
        optax.adam(optax.cosine_decay_schedule(2e-3, steps)),
        average=0.99,
        steps=steps,
        view=view,
    )


def view(split: Split) -> Split:
    """The split with its labels as targets."""
    return changed(split, changes.Classify())


def reader(model: ae.Autoencoder, variables: Variables) -> Classifier:
    """The classifier as functions of images."""

    def features(bound: Any, x: Array) -> Array:
        return bound.encode(Batch(x, x))

    def probabilities(bound: Any, x: Array) -> Array:
        return jax.nn.softmax(bound.decode(features(bound, x)))

    def compiled(method: Any) -> Features:
        run = jax.jit(lambda variables, x: model.apply(variables, x, method=method))
        return lambda x: np.asarray(run(variables, x))

    return Classifier(compiled(features), compiled(probabilities))


def recognised(classifier: Classifier, images: np.ndarray, labels: Any) -> np.ndarray:
    """Whether the first choice is the label: images f[N, *event], labels i[N] -> bool[N]."""
    chosen = ae.evaluation.generation.taken(classifier.probabilities, images).argmax(axis=-1)
    return chosen == np.asarray(labels)
