"""Quantised autoencoders of digits, whose samples are drawn from a prior learned over their codes.

    python -m experiments code-prior --manual-dir FOLDER --seeds 3

VQ (van den Oord et al. 2017) and FSQ (Mentzer et al. 2024) encode a digit as a grid of 7 x 7 codes,
each one of 64. A transformer learns the prior over the codes given the label in the same run; the
decoder does not see the label. Beside them is a Gaussian autoencoder with equal nets, whose prior
is a Gaussian for each label. A classifier that was trained on real images compares samples from the
priors with images decoded from random codes. `bits_per_pixel` is the rate: what the codes of an
image cost under the prior. The likelihood of grey pixels is no probability, so its bound is not one
of log p(x).

Three seeds trained for 31 minutes on 2 CPU cores that were busy with other work. Expect that 78 %
(VQ), 79 % (FSQ) and 73 % (Gaussian) of the samples are recognised as their label, and 10 % of the
random codes; of those of Fashion-MNIST 76, 79, 80 and 10 %.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import aejax as ae
from aejax import evaluation
from aejax.data import changed, changes
from aejax.report import Picture, Section
from aejax.report.drawing import plots
from aejax.types import Array, Key, Variables
from experiments.shared import recognition
from experiments.shared.experiment import Experiment, Members, Models, Page, Splits
from experiments.shared.images import image_data, labelled, pictures
from experiments.shared.labels import by_label
from experiments.shared.numbers import Count
from experiments.shared.place import say
from experiments.shared.training import Job, Numbers
from experiments.shared.variational import SAMPLE_SEED, TEST_SEED

GRID = (7, 7)
CODES = 64
QUANTISED = ("vq", "fsq")
KINDS = (*QUANTISED, "gaussian")


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    steps: Count = 1_500  # optimiser steps
    batch: Count = 64  # examples in a batch
    dataset: str = "mnist"  # name of a data set with labels from 0 to 9 and images of 28x28
    channels: Count = 16  # channels of the encoder's last convolutions
    latents: Count = 2  # latents at each position of the Gaussian autoencoder
    width: Count = 64  # features of a position in the prior
    layers: Count = 2  # blocks of the prior
    learning_rate: float = 2e-3  # learning rate of Adam, which falls to 0
    classifier_steps: Count = 500  # optimiser steps of the classifier
    samples: Count = 50  # samples drawn for each label


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns name -> `Job`: the two autoencoders and the classifier.

    Raises:
      UserError: if the images are not of 28x28 pixels and one channel.
    """
    if event != (28, 28, 1):
        raise ae.UserError(f"code-prior needs images of 28x28x1, not of {event}: give --dataset")
    bottlenecks: dict[str, Any] = {
        "vq": ae.VectorQuantised(CODES, 8, GRID),
        "fsq": ae.FiniteScalarQuantised((8, 8), GRID),
        "gaussian": ae.SpatialGaussian(GRID, config.latents),
    }
    learned = ae.elbo(rate=ae.losses.rate())
    objectives = {
        "vq": ae.merge(learned, {"commitment": (0.25, ae.losses.commitment)}),
        "fsq": learned,
        "gaussian": ae.elbo(),
    }
    tx = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
    jobs = {}
    for kind in KINDS:
        model = ae.Autoencoder(
            ae.nets.SpatialEncoder((config.channels, config.channels)),
            bottlenecks[kind],
            ae.nets.SpatialDecoder(event, (2 * config.channels, config.channels)),
            ae.priors.Codes(CODES, config.width, config.layers)
            if kind in QUANTISED
            else ae.priors.Conditional(()),
            ae.likelihoods.Bernoulli(),
        )
        jobs[kind] = Job(model, objectives[kind], tx, view=_labelled)
    return {**jobs, "classifier": recognition.job(10, config.classifier_steps)}


def _labelled(split: Any) -> Any:
    return changed(split, changes.Labels(10))


def drawn(
    model: Any, variables: Variables, key: Key, count: int, learned: bool = True
) -> np.ndarray:
    """Draws images of each label, f32[10, count, 28, 28, 1], from the prior or random codes."""

    def run(bound: Any, key: Key, label: Array) -> Array:
        context = jnp.tile(jax.nn.one_hot(label, 10)[None], (count, 1))
        if learned:
            return bound.mean(bound.sample(key, count, context))
        codes = jax.random.randint(key, (count, *GRID), 0, CODES)
        return bound.mean(bound.decode(bound.lift(codes, context), context))

    step = jax.jit(lambda key, label: model.apply(variables, key, label, method=run))
    return np.stack([np.asarray(step(jax.random.fold_in(key, i), i)) for i in range(10)])


def sources(kind: str) -> dict[str, bool]:
    """Returns what a model's samples are drawn from -> whether that is the learned prior."""
    return {"learned prior": True} | ({"random codes": False} if kind in QUANTISED else {})


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Computes which share of samples and of decoded random codes is recognised, and the ELBO.

    Each result has one value for each seed.
    """
    test, key = splits[2], jax.random.key(SAMPLE_SEED)
    labels, real = np.asarray(test.labels), pictures(test)
    found: dict[str, Any] = {}
    for kind in KINDS:
        say(f"{kind}: samples and the bound")
        rows: list[dict[str, dict[str, float]]] = []
        for i in range(trained[kind].seeds):
            model, variables = (
                trained[kind].job.model,
                evaluation.member(trained[kind].variables, i),
            )
            classifier = recognition.reader(
                trained["classifier"].job.model,
                evaluation.member(trained["classifier"].variables, i),
            )
            row = {}
            for name, learned in sources(kind).items():
                images = drawn(model, variables, key, config.samples, learned)
                row[f"{kind}: {name}"] = by_label(classifier, images, real, labels)["total"]
            bound = evaluation.elbo(
                model, variables, _labelled(test), jax.random.key(TEST_SEED), batch=500
            )
            means = evaluation.means(bound)
            bits = means["rate"] / (math.prod(test.event) * math.log(2.0))
            row[f"{kind}: learned prior"] |= {
                "bce_bound": -float(means["elbo"]),
                "rate": float(means["rate"]),
                "bits_per_pixel": float(bits),
            }
            if kind in QUANTISED:
                row[f"{kind}: random codes"]["rate"] = math.prod(GRID) * math.log(CODES)
            rows.append(row)
        found |= jax.tree.map(lambda *each: np.asarray(each), *rows)
    return found


def page(config: Config, models: Models, splits: Splits) -> Page:
    """Builds the report page: samples from the prior and from random codes."""
    shown = []
    for kind in KINDS:
        for name, learned in sources(kind).items():
            images = drawn(*models[kind], jax.random.key(SAMPLE_SEED), 14, learned)
            shown.append(
                Picture(
                    f"{kind}-{name.split()[0]}",
                    f"{kind}: each row shows samples of one label; their source: {name}.",
                    partial(
                        plots.image_grid,
                        images=images,
                        row_labels=[str(i) for i in range(10)],
                        tile=48,
                    ),
                )
            )
    text = "The decoder does not see the label: what digit a sample shows is in its codes."
    return Page(
        f"A prior over the codes of {config.dataset}",
        __doc__ or "",
        [Section("Samples", text, shown)],
    )


EXPERIMENT = Experiment(
    name="code-prior",
    config=Config,
    data=labelled(image_data(binarise="none")),
    build=build,
    figures=figures,
    page=page,
)
