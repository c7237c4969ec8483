"""Features that were learnt without labels, and the linear probes that compare them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from aejax import evaluation
from aejax.data import Split
from aejax.errors import UserError
from aejax.types import Batch, Variables
from experiments.shared.images import pictures

Columns = Mapping[str, np.ndarray]  # name of the features -> f32[N, D]
Models = Mapping[str, tuple[Any, Variables]]


def features(models: Models, fitted_on: Split, split: Split, components: int) -> dict[str, Any]:
    """Computes all features of a split's pictures, f32[N, D] each.

    Args:
      models: name of a job -> its model and the variables of one seed.
      fitted_on: the pictures on 3,000 of which principal components are fitted.
      split: the pictures.
      components: the number of principal components.
    """
    raw, fitted = (pictures(s).reshape(len(s), -1) for s in (split, fitted_on))
    few = np.random.default_rng(0).permutation(len(fitted))[:3_000]
    found = evaluation.principal(fitted[np.sort(few)], components)
    result = {"raw pixels": raw, "PCA": evaluation.project(found, raw).astype(np.float32)}
    plain, vq = models["plain"], models["vq"]
    result["plain codes"] = evaluation.latents(*plain, split)
    result["VAE means"] = evaluation.latents(*models["vae"], split)
    result["SAE codes"] = np.asarray(evaluation.latents(*models["sae"], split))
    result["VQ codes"] = _each(*vq, split, lambda m, b: m.posterior(b).z)
    result["patch features"] = _each(*plain, split, _pooled)
    return result


def _pooled(model: Any, batch: Batch) -> Any:
    """Returns mean and largest value of the encoder's maps over all places, f32[B, 2 D]."""
    maps = model.features(batch)
    if maps.ndim != 4:
        raise UserError(f"patch features need maps, but the encoder gives shape {maps.shape}")
    return jax.numpy.concatenate([maps.mean(axis=(1, 2)), maps.max(axis=(1, 2))], axis=-1)


def _each(
    model: Any, variables: Variables, split: Split, function: Callable[[Any, Batch], Any]
) -> np.ndarray:
    """Applies a function of (bound model, batch) to all pictures; the results are flattened."""
    step = jax.jit(lambda variables, batch: model.apply(variables, batch, method=function))
    rows = [np.asarray(step(variables, batch)) for batch in split.batches(500)]
    return np.concatenate([row.reshape(len(row), -1) for row in rows])


def probes(
    train: Columns,
    train_labels: np.ndarray,
    test: Columns,
    test_labels: np.ndarray,
    budgets: Sequence[int],
    seed: int,
) -> dict[str, dict[str, float]]:
    """Returns name of features -> budget -> accuracy of a logistic regression on test pictures.

    All features get the same labelled pictures, about equally many of each class. The ridge penalty
    is fixed for standardised features, because 10 labels do not suffice to choose one.

    Args:
      train, test: the features of train and test pictures.
      train_labels, test_labels: their labels, i[N].
      budgets: numbers of labels; all labels are used where there are fewer.
      seed: the seed of the choice of labelled pictures.
    """
    order = evaluation.varied(
        train_labels[shuffled := np.random.default_rng(seed).permutation(len(train_labels))],
        max(budgets),
        len(train_labels),
    )
    found: dict[str, dict[str, float]] = {}
    for name, values in train.items():
        row = {}
        for budget in budgets:
            rows = shuffled[order[:budget]]
            predict = linear(values[rows], train_labels[rows])
            row[f"at_{budget}"] = float(np.mean(predict(test[name]) == test_labels))
        found[name] = row
    return found


def linear(values: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Fits a multinomial logistic regression; returns the function from features to labels."""
    classes, probability = logistic(values, labels)
    return lambda others: classes[probability(others).argmax(axis=1)]


def logistic(
    values: np.ndarray, labels: np.ndarray, iterations: int = 50
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Fits a multinomial logistic regression of standardised features, with a ridge penalty.

    Args:
      values: f[N, D].
      labels: i[N].
      iterations: the steps after which L-BFGS stops, converged or not; few steps act as a penalty.

    Returns:
      The classes i[n], and the function from features f[M, D] to probabilities f[M, n].
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, scale = values.mean(axis=0), values.std(axis=0)
    # A feature that is constant among few labelled pictures tells nothing about others.
    scale = np.where(scale > 1e-6, scale, np.inf)
    model = LogisticRegression(C=0.1, max_iter=iterations, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((values - mean) / scale, labels)
    return model.classes_, lambda others: model.predict_proba((others - mean) / scale)


def sparse_probes(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    k: Sequence[int],
) -> dict[str, float]:
    """Returns the balanced accuracy of probes of the k best columns, the mean over classes.

    Numbers of columns that the features do not have are left out.
    """
    found = {}
    for count in k:
        if count > train.shape[1]:
            continue
        result = evaluation.probe(train, train_labels, test, test_labels, count)
        found[f"best_{count}"] = result.accuracy
    return found
