"""Trains the encoder of a finished run further on another data set, as a classifier.

    python -m experiments fine-tune runs/transfer fashion_mnist --labels 1000

A new head is put on the encoder of the run's first model, and both are trained on a few labelled
pictures. The same net is trained from a random start for comparison, and the accuracies of both on
test pictures are printed; with MNIST's encoder and 1,000 labels of Fashion-MNIST expect 0.82 and
0.80. This takes only an initialiser that sets the encoder (see `_trained`).
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import aejax as ae
from aejax.data import Split, changed, changes
from aejax.data.split import fingerprint
from aejax.errors import UserError
from aejax.evaluation import varied
from aejax.types import Variables
from aejax.variables import get, put
from experiments.shared.images import image_data, labelled
from experiments.shared.place import Place, say

ENCODER = ("params", "encoder")  # the path of the encoder's parameters
HIDDEN = 64  # units of the head


def command(
    run_dir: pathlib.Path,
    dataset: str,
    labels: int = 1_000,
    steps: int = 300,
    seeds: int = 3,
    learning_rate: float = 1e-3,
    data_dir: str | None = None,
    manual_dir: str | None = None,
) -> None:
    """Trains and tests both classifiers.

    Args:
      run_dir: folder of a finished run whose first model has an encoder for the pictures.
      dataset: name of a data set with labels from 0 to 9.
      labels: number of labelled pictures.
      steps: optimiser steps.
      seeds: number of classifiers with different seeds.
      learning_rate: learning rate of Adam, which falls to 0.
      data_dir: folder of prepared data sets; that of tensorflow-datasets by default.
      manual_dir: folder with the raw files of the data set; then nothing is downloaded.
    """
    if min(labels, steps, seeds) < 1:
        raise UserError(f"--labels {labels}, --steps {steps}, --seeds {seeds}: give 1 or more")
    place = Place(data_dir=data_dir, manual_dir=manual_dir)
    train, _, test = labelled(image_data(dataset, binarise="none"))(None, place)
    assert train.labels is not None
    rows = varied(train.labels, labels, len(train))
    arrays = train.rows(rows)
    few = dataclasses.replace(train, arrays=arrays, fingerprint=fingerprint(arrays))
    opened = ae.load(run_dir, seed=0)
    kept = get(opened.variables, ENCODER)
    if kept is None:
        raise UserError(f"the first model of {run_dir} has no trained encoder: give another run")
    tx = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    for name, start in (("encoder of the run", kept), ("random start", None)):
        found = [
            _accuracy(*_trained(opened.model.encoder, start, few, tx, steps, seed), test)
            for seed in range(seeds)
        ]
        say(f"{name:<20} accuracy {np.mean(found):.4f} ± {np.std(found, ddof=seeds > 1):.4f}")


def _trained(
    encoder: Any, start: Any, train: Split, tx: Any, steps: int, seed: int
) -> tuple[ae.Autoencoder, Variables]:
    """Trains a classifier, an autoencoder whose target is the label, from the given encoder."""
    model = ae.Autoencoder(
        encoder,
        ae.Point(HIDDEN),
        ae.nets.MLP((HIDDEN,), shape=(10,)),
        likelihood=ae.likelihoods.Categorical(10),
    )

    def keep(variables: Variables, batch: Any, key: Any) -> Variables:
        return variables if start is None else put(variables, ENCODER, start)

    learner = ae.learner(model, ae.reconstruction(), tx, initialise=keep)
    learner = ae.compiled(ae.chunked(learner, min(steps, 100)))
    data = changed(train, changes.Classify())
    batches = ae.data.Batches(data, size=min(100, len(data)), seed=seed)
    state = learner.init(jax.random.key(seed), batches[0])
    variables = learner.variables(state)
    for after, _ in ae.loop(learner, state, batches, steps=steps, progress=False):
        variables = jax.tree.map(jnp.copy, learner.variables(after))
    return model, variables


def _accuracy(model: ae.Autoencoder, variables: Variables, test: Split) -> float:
    """Returns the share of test pictures whose most probable class is their label."""

    @jax.jit
    def classes(variables: Variables, batch: ae.Batch) -> Any:
        return model.apply(variables, batch).prediction.argmax(axis=-1)  # type: ignore[union-attr]

    data = changed(test, changes.Classify())
    right = [
        np.asarray(classes(variables, batch)) == np.asarray(batch.target).reshape(-1)
        for batch in data.batches(1_000)
    ]
    return float(np.concatenate(right).mean())
