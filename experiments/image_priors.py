"""Standard normal prior compared with VampPrior, for VAEs with one or two levels of latents.

    python -m experiments image-priors --model hvae --prior vamp
    python -m experiments image-priors --model convhvae --prior vamp --dataset fashion_mnist

The nets are those of Tomczak and Welling 2018: gated layers of 300 units, 40 latents per level, and
500 pseudo-inputs. Of 70,000 images, 50,000 are for training, binarised anew at every step, 10,000
for validation, and 10,000, binarised once, for test. The optimiser is Adam at 5e-4 with batches of
100. The weight of the rate increases over the first 5 % of the steps, as it does in the paper over
100 of 2,000 epochs.
Unlike in the paper, gradients are not normalised per tensor, log standard deviations are not
clipped, and there is no early stopping: averaged weights of the last step are evaluated with
K = 5000 draws. The model convhvae, with convolutions, is for accelerators. On one CPU core its
steps take seconds each; smaller values of `--tested` and `--nll-draws` make its evaluation faster
there, but less exact.

On one CPU core `--model vae --prior standard --seeds 3 --steps 20000 --learning-rate 1e-3
--nll-draws 500` took 10 minutes of training and reached an NLL of 88.37 +- 0.16.
experiments/README.md has the results of all models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import optax

import aejax as ae
from experiments.shared import hierarchies, variational
from experiments.shared.experiment import Experiment, Members, Splits
from experiments.shared.images import image_data
from experiments.shared.numbers import Count
from experiments.shared.training import Job, Numbers


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    steps: Count = 50_000  # optimiser steps; 50000 are 100 epochs
    chunk: Count = 1_000  # steps in one compiled call
    log_every: Count = 100  # steps between two lines of metrics.jsonl
    dataset: Literal["mnist", "fashion_mnist"] = "mnist"  # name of the data set
    model: hierarchies.Kind = "vae"  # one level, two levels, or two with convolutions
    prior: Literal["standard", "vamp"] = "vamp"  # prior of the top level
    latents: Count = 40  # latents of each level
    width: Count = 300  # gated units of each dense layer
    pseudo_inputs: Count = 500  # number of pseudo-inputs of the VampPrior
    learning_rate: float = 5e-4  # constant learning rate of Adam; weights are averaged
    nll_draws: Count = 5_000  # samples of the importance-weighted NLL; 5000 in the paper too
    tested: Count = 10_000  # number of test examples to evaluate, starting with the first


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns {"vae": the `Job`, that is the chosen model and prior with their training}."""
    vamp = config.prior == "vamp"
    top = ae.priors.Vamp(event, config.pseudo_inputs) if vamp else ae.priors.Standard()
    model = hierarchies.model(config.model, event, config.latents, config.width, top)
    beta = optax.linear_schedule(0.0, 1.0, max(config.steps // 20, 1))
    # A VampPrior has no KL in closed form.
    objective = ae.elbo(beta, ae.losses.rate() if vamp else ae.losses.kl)
    watched = ae.watch(error=ae.losses.squared_error)
    tx = optax.adam(config.learning_rate)
    return {"vae": Job(model, ae.merge(objective, watched), tx, average=0.999)}


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Computes test results on the first `tested` examples, and the number of epochs."""
    splits = (*splits[:2], splits[2].take(config.tested))
    return variational.figures_and_epochs(config, trained, splits)


EXPERIMENT = Experiment(
    name="image-priors",
    config=Config,
    data=image_data(),
    build=build,
    figures=figures,
    page=lambda config, models, splits: variational.page(
        f"A prior of {config.dataset}", __doc__ or "", models, splits
    ),
)
