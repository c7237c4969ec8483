"""Sample quality, interpolation and overfitting of a VAE, compared with a plain autoencoder.

    python -m experiments generation

Quality: 5,000 samples are compared with 5,000 test images by the features of a small classifier,
which was trained on the same data, so the distances are not FIDs. The scores of real validation
images, used instead of samples, show what the best samples would get. The plain autoencoder has no
prior, so its samples come from a Gaussian fitted to its codes. Interpolation: 500 straight paths
between the codes of test images are compared with cross-fades of the images. Overfitting: the same
two models are trained on 1,000 images; the report shows their train and validation curves, and
samples next to the nearest train images.

The experiment takes 3 minutes on one CPU core. experiments/README.md has its results. Expect the
classifier to recognise 99 % of test images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
import optax

from aejax import evaluation
from aejax.data import Split
from aejax.evaluation import decoding
from aejax.evaluation.examples import chosen
from aejax.evaluation.generation import nearest_distance, taken
from aejax.report import Picture, Section, variational_sections
from aejax.report.curve import grouped
from aejax.report.drawing import plots
from aejax.types import Variables
from experiments.shared import recognition, variational
from experiments.shared.experiment import Experiment, Finished, Members, Models, Page, Splits
from experiments.shared.images import image_data, labelled, pictures
from experiments.shared.numbers import Count
from experiments.shared.training import Job, Numbers, Trained
from experiments.shared.variational import SAMPLE_SEED

POINTS = 11  # points of a path, including both ends


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    steps: Count = 6_000  # optimiser steps
    dataset: str = "mnist"  # name of a data set with labels from 0 to 9
    net: variational.Net = "mlp"  # type of encoder and decoder
    width: Count = 256  # units of each hidden layer; conv starts with WIDTH / 8 channels
    latents: Count = 16  # number of latents
    learning_rate: float = 1e-3  # learning rate of Adam
    warmup: int = 1_000  # steps over which the weight of the rate grows from 0
    classifier_steps: Count = 800  # optimiser steps of the classifier
    few: Count = 1_000  # number of train images of the models that are meant to overfit
    few_steps: Count = 4_000  # optimiser steps of the models that are meant to overfit
    compared: Count = 5_000  # number of samples, and of real images that they are compared with
    paths: Count = 500  # number of interpolation paths


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns name -> `Job` (a model and its training).

    The models are a VAE and a plain autoencoder, each trained on all images and on few images, and
    the classifier.
    """
    size = (config.net, event, config.width, config.latents)
    beta = optax.linear_schedule(0.0, 1.0, max(config.warmup, 1))
    jobs = variational.pair(size, beta, optax.adam(config.learning_rate))
    few = partial(_few, count=config.few)
    small = {
        f"{name}-few": job._replace(average=0.99, steps=config.few_steps, view=few)
        for name, job in jobs.items()
    }
    return {**jobs, **small, "classifier": recognition.job(10, config.classifier_steps)}


def _few(split: Split, count: int) -> Split:
    """Returns the first `count` examples of a train split, and any other split unchanged."""
    return split.take(count) if split.name.endswith("/train") else split


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Computes scores of samples and paths, and errors and distances that show overfitting."""
    train, validation, test = splits
    seeds = trained["vae"].seeds
    count = min(config.compared, len(test), len(validation))
    real = pictures(test.take(count))
    rows: list[dict[str, Any]] = []
    for member in zip(
        *(evaluation.each(t.variables, seeds) for t in trained.values()), strict=True
    ):
        variables = dict(zip(trained, member, strict=True))
        classifier = recognition.reader(trained["classifier"].job.model, variables["classifier"])
        row: dict[str, Any] = {}
        for label in ("vae", "plain"):
            model = trained[label].job.model
            drawn = decoding.generated(
                model, variables[label], train, jax.random.key(SAMPLE_SEED), count
            )
            row[f"samples: {label}"] = _quality(classifier, real, drawn)
        row["samples: real"] = _quality(classifier, real, pictures(validation.take(count)))
        row |= _paths(config, trained, variables, classifier, splits)
        for label in ("vae", "plain", "vae-few", "plain-few"):
            row[f"fit: {label}"] = _fit(trained[label], variables[label], splits)
        right = recognition.recognised(classifier, pictures(test), test.labels)
        row["classifier_test_accuracy"] = float(right.mean())
        rows.append(row)
    return jax.tree.map(lambda *each: np.stack(each), *rows)


def _quality(classifier: recognition.Classifier, real: np.ndarray, drawn: np.ndarray) -> Any:
    found = evaluation.quality(classifier.features, real, drawn)
    sure = taken(classifier.probabilities, drawn).max(axis=-1)
    return {
        "classifier_frechet": found.frechet,
        "classifier_kernel": found.kernel,
        "precision": found.precision,
        "recall": found.recall,
        "sample_confidence": float(sure.mean()),
    }


def _paths(
    config: Config, trained: Members, variables: Any, classifier: Any, splits: Splits
) -> dict[str, Any]:
    """Computes scores of decoded lines between the codes of test images.

    For comparison, the result has the scores of cross-fades between the same images.
    """
    train, _, test = splits
    count = min(config.paths, len(test) // 2)
    start, end = (chosen(test, np.arange(count) + i * count) for i in range(2))
    frames = {}
    for label in ("vae", "plain"):
        model = trained[label].job.model
        frames[label] = decoding.interpolate(model, variables[label], start, end, POINTS)
    share = np.linspace(0.0, 1.0, POINTS, dtype=np.float32).reshape(1, -1, 1, 1, 1)
    first, last = (np.asarray(batch.target)[:, None] for batch in (start, end))
    frames["cross-fade"] = (1.0 - share) * first + share * last
    known = pictures(train)
    rows: dict[str, Any] = {}
    for label, values in frames.items():
        found = evaluation.paths(values, classifier.probabilities, known)
        rows[f"paths: {label}"] = {
            name: float(value.mean()) for name, value in found._asdict().items()
        }
    rows["paths: real images"] = {
        "confidence": float(taken(classifier.probabilities, first[:, 0]).max(axis=-1).mean()),
        "distance": float(nearest_distance(first[:, 0], known).mean()),
    }
    return rows


def _fit(done: Trained, variables: Variables, splits: Splits) -> dict[str, float]:
    """Computes how well a model reconstructs, and how close its samples are to train images.

    Returns:
      The mean square errors of the reconstructions of train and of test images, and the mean
      distances to the nearest train image, from samples and, for comparison, from test images.
    """
    model, seen, test = done.job.model, done.job.view(splits[0]), splits[2]

    def error(split: Split) -> float:
        return float(variational.mean_square_error(model, variables, split))

    drawn = decoding.generated(model, variables, seen, jax.random.key(SAMPLE_SEED), 500)
    known = pictures(seen)
    return {
        "train_error": error(seen.take(10_000)),
        "test_error": error(test),
        "sample_distance": float(nearest_distance(drawn, known).mean()),
        "test_distance": float(nearest_distance(pictures(test.take(500)), known).mean()),
    }


def findings(config: Config, finished: Finished) -> list[Section]:
    """Builds the section with the train and validation curves of models trained on few images."""
    pictures_of = []
    for label, name in (("vae-few", "VAE"), ("plain-few", "Plain autoencoder")):
        curves = grouped(finished.histories[label])["distortion"]
        pictures_of.append(
            Picture(
                f"overfit-{label}",
                f"{name} on {config.few:,} images: the cross-entropy of reconstructions, in nats.",
                partial(plots.curves, series=curves, name=f"{name}: distortion"),
            )
        )
    text = (
        "Where the curve of the training batches falls and that of validation rises, the model "
        "overfits."
    )
    return [Section("Overfitting", text, pictures_of)]


def page(config: Config, models: Models, splits: Splits) -> Page:
    """Builds the report page.

    It has all sections for the models trained on all images, and only samples of the models trained
    on few images.
    """
    key = jax.random.key(SAMPLE_SEED)
    sections = variational_sections(*models["vae"], splits, key, plain=models["plain"])
    few = (_few(splits[0], config.few), *splits[1:])
    again = variational_sections(*models["vae-few"], few, key, plain=models["plain-few"])
    for section in again:
        if section.title in ("Samples", "Nearest training examples"):
            drawn = [p._replace(name=f"few-{p.name}") for p in section.figures]
            title = f"{section.title} of the models on {config.few:,} images"
            sections.append(section._replace(title=title, figures=drawn))
    return Page(f"Generation and overfitting: {config.dataset}", __doc__ or "", sections)


EXPERIMENT = Experiment(
    name="generation",
    config=Config,
    data=labelled(image_data(binarise="none")),
    build=build,
    figures=figures,
    page=page,
    findings=findings,
)
