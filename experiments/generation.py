"""What is generated: VAE beside plain autoencoder, how good, how smooth in between, how overfitted.

    python -m experiments generation

Quality: 5,000 samples beside 5,000 test images by the features of a small classifier trained on the
data (classifier distances, never FID), with real validation images in the samples' place as the
floor. The plain autoencoder, which has no prior, draws from one Gaussian fitted to its codes.
Interpolation: 500 straight paths between the codes of test images, and cross-fades of the images
themselves. Overfitting: the same two models on 1,000 images; training against validation over steps
and the nearest training image beside each sample.

3 minutes on one CPU core. The figures stand in README.md; expect 99 % of test images recognised by
the classifier.
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
from experiments.shared.experiment import Experiment, Measured, Members, Models, Page, Splits
from experiments.shared.images import image_data, labelled, pictures
from experiments.shared.training import Numbers, Part, Trained, check
from experiments.shared.variational import SAMPLE_SEED

POINTS = 11  # of a path, both ends among them


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The experiment's numbers."""

    steps: int = 6_000
    dataset: str = "mnist"  # with labels, for the classifier
    net: variational.Net = "mlp"
    width: int = 256  # units of the hidden layers
    latents: int = 16  # dimensions of the latent space
    learning_rate: float = 1e-3  # of Adam
    warmup: int = 1_000  # steps in which the weight of the rate grows from 0
    classifier_steps: int = 800
    few: int = 1_000  # train images of the models that are to overfit
    few_steps: int = 4_000
    compared: int = 5_000  # samples, and real images beside them
    paths: int = 500


def build(config: Config, event: tuple[int, ...]) -> dict[str, Part]:
    """The two models, both again on few images, and the classifier."""
    check(config, "width", "latents", "classifier_steps", "few", "few_steps", "compared", "paths")
    size = (config.net, event, config.width, config.latents)
    beta = optax.linear_schedule(0.0, 1.0, max(config.warmup, 1))
    parts = variational.pair(size, beta, optax.adam(config.learning_rate))
    few = partial(_few, count=config.few)
    small = {
        f"{name}-few": part._replace(average=0.99, steps=config.few_steps, view=few)
        for name, part in parts.items()
    }
    return {**parts, **small, "classifier": recognition.part(10, config.classifier_steps)}


def _few(split: Split, count: int) -> Split:
    """The first train images alone; validation stays."""
    return split.take(count) if split.name.endswith("/train") else split


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Quality, paths, and errors on train and test with the samples' nearest training images."""
    train, validation, test = splits
    seeds = trained["vae"].seeds
    count = min(config.compared, len(test), len(validation))
    real = pictures(test.take(count))
    rows: list[dict[str, Any]] = []
    for member in zip(
        *(evaluation.each(t.variables, seeds) for t in trained.values()), strict=True
    ):
        variables = dict(zip(trained, member, strict=True))
        classifier = recognition.reader(trained["classifier"].part.model, variables["classifier"])
        row: dict[str, Any] = {}
        for label in ("vae", "plain"):
            model = trained[label].part.model
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
    """Straight lines between codes of test images, decoded, and between the images themselves."""
    train, _, test = splits
    count = min(config.paths, len(test) // 2)
    start, end = (chosen(test, np.arange(count) + i * count) for i in range(2))
    frames = {}
    for label in ("vae", "plain"):
        model = trained[label].part.model
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


def _fit(part: Trained, variables: Variables, splits: Splits) -> dict[str, float]:
    """Errors on what was trained on and on test images, and how near samples are to the former."""
    model, seen, test = part.part.model, part.part.view(splits[0]), splits[2]

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


def measured(config: Config, found: Measured) -> list[Section]:
    """Training beside validation of the models on few images."""
    pictures_of = []
    for label, name in (("vae-few", "VAE"), ("plain-few", "Plain autoencoder")):
        parts = grouped(found.histories[label])["distortion"]
        pictures_of.append(
            Picture(
                f"overfit-{label}",
                f"{name} on {config.few:,} images: cross-entropy of the reconstruction, nats.",
                partial(plots.curves, series=parts, name=f"{name}: distortion"),
            )
        )
    text = (
        "Where the curve of the training batches falls and that of validation rises, the model "
        "learns its images by heart."
    )
    return [Section("Overfitting", text, pictures_of)]


def page(config: Config, models: Models, splits: Splits) -> Page:
    """Samples, nearest images and paths of the models on all images; nearest ones for few."""
    key = jax.random.key(SAMPLE_SEED)
    sections = variational_sections(*models["vae"], splits, key, plain=models["plain"])
    few = (_few(splits[0], config.few), *splits[1:])
    again = variational_sections(*models["vae-few"], few, key, plain=models["plain-few"])
    for section in again:
        if section.title in ("Samples", "Nearest training examples"):
            drawn = [p._replace(name=f"few-{p.name}") for p in section.figures]
            title = f"{section.title}, of the models on {config.few:,} images"
            sections.append(section._replace(title=title, figures=drawn))
    return Page(f"What is generated: {config.dataset}", __doc__ or "", sections)


EXPERIMENT = Experiment(
    name="generation",
    config=Config,
    data=labelled(image_data(binarise="none")),
    build=build,
    figures=figures,
    page=page,
    measured=measured,
)
