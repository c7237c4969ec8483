"""Two views of each digit, one of which is often missing: products and mixtures of experts.

    python -m experiments views --manual-dir FOLDER --seeds 3

The views are the left and the right half of a digit, whose pixels are thresholded at 1/2. Of 20,000
train digits half are whole; of the others one half is missing, the left or the right at random. A
product of experts (MVAE, Wu and Goodman 2018) and a mixture of experts (MMVAE, Shi et al. 2019,
with IWAE) are each trained on all digits (`all`), and on the whole ones alone, which are half as
many: for half of the steps, so that both pass over their digits equally often (`whole`), and for
all steps (`longer`), which are twice as many passes. `nll` is that of whole test digits,
importance-weighted, in nats. `recognised` is the share of test digits whose right half was
generated from the left one that a classifier, trained on real digits, recognises; beside it are the
whole digits, and left halves with the right half of another digit (`shuffled`) or with none
(`blank`).

Three seeds took 9 minutes of CPU time with `--steps 1500 --tested 1000 --draws 100` on a shared
machine of 2 CPU cores. Expect 99.9, 107.2 and 97.0 nats for the product on all digits, on the whole
ones, and on these for longer, 105.7, 113.5 and 106.2 for the mixture, and that 82, 70, 71, 88, 89
and 90 % are recognised, of blank ones 78 %.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import aejax as ae
from aejax import evaluation
from aejax.data import Split, changed, changes
from aejax.report import Picture, Section
from aejax.report.drawing import plots
from aejax.types import Array, Batch, Key, Variables
from experiments.shared import recognition
from experiments.shared.experiment import Experiment, Members, Models, Page, Splits
from experiments.shared.images import thresholded
from experiments.shared.numbers import Count
from experiments.shared.place import Place
from experiments.shared.training import Job, Numbers
from experiments.shared.variational import SAMPLE_SEED, TEST_SEED

HALF = 14
EVENT = (28, 28, 1)
KINDS = {"product": ae.ProductOfExperts, "mixture": ae.MixtureOfExperts}


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    steps: Count = 3_000  # optimiser steps
    batch: Count = 100  # examples in a batch
    dataset: str = "mnist"  # name of a data set with labels from 0 to 9 and images of 28x28
    train: Count = 20_000  # number of train digits, half of which are whole
    width: Count = 256  # units of each hidden layer
    latents: Count = 16  # number of latents
    mixture_draws: Count = 4  # codes drawn for each example in the training of the mixture
    learning_rate: float = 3e-3  # learning rate of Adam, which falls to 0
    classifier_steps: Count = 500  # optimiser steps of the classifier
    draws: Count = 200  # samples of the importance-weighted likelihood
    tested: Count = 2_000  # number of test digits


@dataclasses.dataclass(frozen=True)
class Filled:
    """Removes the mask, so that a classifier sees whole digits."""

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Applies the change to one batch."""
        return batch._replace(mask=None)


def data(config: Config, place: Place) -> Splits:
    """Returns the splits; the train digits of odd index lack a half, which is NaN."""
    train, validation, test = thresholded(config.dataset, place, config.train, config.tested)
    arrays = [(split.arrays["x"], split.labels) for split in (train, validation, test)]
    seen, labels = np.array(arrays[0][0]), arrays[0][1]
    left = np.random.default_rng(22).random(len(seen)) < 0.5
    odd = np.arange(len(seen)) % 2 == 1
    seen[odd & left, :, :HALF] = np.nan
    seen[odd & ~left, :, HALF:] = np.nan
    return ae.data.splits((seen, labels), arrays[1], arrays[2])


def marked(split: Split) -> Split:
    """Returns a split in whose inputs missing pixels are NaN."""
    return changed(split, changes.Unfilled())


def complete(split: Split) -> Split:
    """Returns the split's whole digits only."""
    mask = split.arrays.get("mask")
    whole = slice(None) if mask is None else np.flatnonzero(np.all(mask > 0, axis=(1, 2, 3)))
    arrays = {name: array[whole] for name, array in split.arrays.items()}
    return dataclasses.replace(split, arrays=arrays)


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns name -> `Job`: both posteriors on all and on the whole digits, and the classifier."""
    jobs, half = {}, max(config.steps // 2, 1)

    def adam(steps: int) -> optax.GradientTransformation:
        return optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps))

    def only_whole(split: Split) -> Split:
        return marked(complete(split))

    for kind, part in KINDS.items():
        nets = {side: ae.nets.MLP((config.width,)) for side in ("left", "right")}
        model = ae.Autoencoder(
            ae.nets.Views(nets, {"left": HALF, "right": HALF}, axis=2),
            part(config.latents),
            ae.nets.MLP((config.width,), shape=event),
            ae.priors.Standard(),
            ae.likelihoods.Bernoulli(),
        )
        several = {"draws": config.mixture_draws, "bound": ae.bounds.iwae}
        options: dict[str, Any] = several if kind == "mixture" else {}
        start = Job(model, ae.elbo(rate=ae.losses.rate()), adam(config.steps), average=0.99)
        start = start._replace(**options)
        jobs[f"{kind}-all"] = start._replace(view=marked)
        jobs[f"{kind}-whole"] = start._replace(view=only_whole, steps=half, tx=adam(half))
        jobs[f"{kind}-longer"] = start._replace(view=only_whole)
    classifier = recognition.job(10, config.classifier_steps)
    view = lambda split: recognition.view(changed(complete(split), Filled()))  # noqa: E731
    return {**jobs, "classifier": classifier._replace(view=view)}


def completed(model: Any, variables: Variables, images: np.ndarray, key: Key) -> np.ndarray:
    """Returns digits f32[N, 28, 28, 1] whose right halves are generated from the left ones.

    A code is drawn given the left half; the right half is the mean of its pixels.
    """

    @jax.jit
    def run(images: Array, key: Key) -> Array:
        x = images.at[:, :, HALF:].set(jnp.nan)
        bound, batch = model.bind(variables), Batch(x, images)
        code = bound.code(batch, bound.features(batch), key)
        made = bound.mean(bound.decode(code.z))
        return jnp.concatenate([images[:, :, :HALF], made[:, :, HALF:]], axis=2)

    return np.asarray(run(jnp.asarray(images), key))


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Computes the joint likelihood of whole test digits, and the share that is recognised.

    Each result has one value for each seed.
    """
    test, key = splits[2], jax.random.key(TEST_SEED)
    images, labels = test.arrays["x"], np.asarray(test.labels)
    reference = trained["classifier"]
    found: list[dict[str, dict[str, float]]] = []
    for i in range(reference.seeds):
        classifier = recognition.reader(
            reference.job.model, evaluation.member(reference.variables, i)
        )

        def share(pictures: np.ndarray, classifier: Any = classifier) -> float:
            return float(np.mean(recognition.recognised(classifier, pictures, labels)))

        row = {}
        for name in (name for name in trained if name != "classifier"):
            model, variables = (
                trained[name].job.model,
                evaluation.member(trained[name].variables, i),
            )
            held: Any = images
            nll = evaluation.nll(model, variables, held, key, draws=config.draws, batch=200)
            made = completed(model, variables, images, jax.random.key(SAMPLE_SEED))
            row[name] = {"nll": float(np.mean(nll.nll)), "recognised": share(made)}
        shuffled, blank = images.copy(), images.copy()
        shuffled[:, :, HALF:] = np.roll(images[:, :, HALF:], 1, axis=0)
        blank[:, :, HALF:] = 0.0
        for name, pictures in (("real", images), ("shuffled", shuffled), ("blank", blank)):
            row[name] = {"recognised": share(pictures)}
        found.append(row)
    return jax.tree.map(lambda *each: np.asarray(each), *found)


def page(config: Config, models: Models, splits: Splits) -> Page:
    """Builds the report page: right halves generated from left ones."""
    images = splits[2].arrays["x"][:14]
    shown = []
    for name in (name for name in models if name != "classifier"):
        rows = [images] + [completed(*models[name], images, jax.random.key(i)) for i in range(4)]
        shown.append(
            Picture(
                name,
                f"{name}: digits, and four right halves generated from each left half.",
                partial(
                    plots.image_grid,
                    images=np.stack(rows),
                    row_labels=["digit", "1", "2", "3", "4"],
                    tile=48,
                ),
            )
        )
    text = "The left half is given; a code drawn from its posterior gives the right half."
    return Page("Two views of a digit", __doc__ or "", [Section("Completed digits", text, shown)])


EXPERIMENT = Experiment(
    name="views", config=Config, data=data, build=build, figures=figures, page=page
)
