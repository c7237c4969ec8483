"""A small image classifier that scores samples, by its predictions and by its features.

Like the experiment's models it is trained as an autoencoder, but on real images only, and its
target is the label. Distances between its features are called classifier distances; they are not
FIDs.
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
from experiments.shared.training import Job

FEATURES = 64  # the number of features of an image


class Classifier(NamedTuple):
    """The two outputs of a trained classifier, as functions of images f[B, *event]."""

    features: Features  # images -> f[B, FEATURES], the output of the encoder
    probabilities: Features  # images -> f[B, classes], the probability of each class


def job(classes: int, steps: int) -> Job:
    """Returns the `Job` that trains a classifier with two strided convolutions and dense layers."""
    model = ae.Autoencoder(
        ae.nets.Conv((16, 32), 128),
        ae.Point(FEATURES),
        ae.nets.MLP((FEATURES,), shape=(classes,)),
        likelihood=ae.likelihoods.Categorical(classes),
    )
    return Job(
        model,
        ae.reconstruction(),
        optax.adam(optax.cosine_decay_schedule(2e-3, steps)),
        average=0.99,
        steps=steps,
        view=view,
    )


def view(split: Split) -> Split:
    """Returns a split of the same images whose targets are their labels."""
    return changed(split, changes.Classify())


def reader(model: ae.Autoencoder, variables: Variables) -> Classifier:
    """Returns a trained classifier as compiled functions of images."""

    def features(bound: Any, x: Array) -> Array:
        return bound.encode(Batch(x, x))

    def probabilities(bound: Any, x: Array) -> Array:
        return jax.nn.softmax(bound.decode(features(bound, x)))

    def compiled(method: Any) -> Features:
        run = jax.jit(lambda variables, x: model.apply(variables, x, method=method))
        return lambda x: np.asarray(run(variables, x))

    return Classifier(compiled(features), compiled(probabilities))


def recognised(classifier: Classifier, images: np.ndarray, labels: Any) -> np.ndarray:
    """Returns whether the most probable class of each image f[N, *event] is its label, bool[N]."""
    chosen = ae.evaluation.generation.taken(classifier.probabilities, images).argmax(axis=-1)
    return chosen == np.asarray(labels)
