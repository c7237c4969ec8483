"""The models in the table of Burda et al. 2016: VAE and IWAE on dynamically binarised MNIST.

    python -m experiments mnist-iwae --layers 1 --objective vae --draws 1
    python -m experiments mnist-iwae --layers 2 --objective iwae --draws 50 --steps 20000
    python -m experiments mnist-iwae --schedule stages --batch 20 --steps 9774400

The result is the NLL, estimated with K = 5000 draws. As in the paper, the nets have tanh, and the
last bias is initialised to the logits of the mean train image. The encoder has layers of
784-200-200-50 units, and the decoder the same in reverse. With two stochastic layers they have
784-200-200-100-100-100-50 units, and the lower code (100) is drawn before the upper one (50). The
objective dreg supports only one stochastic layer. As in the paper's code, 59,600 images are for
training, binarised anew at every step. The other 400 are evaluated during training, but the result
does not depend on them. All 10,000 test images, binarised once, are evaluated.

The schedule `stages` is that of the paper: learning rates from 1e-3 to 1e-4 in 8 stages of 3^i
epochs, 3,280 epochs in all with batches of 20, and Adam with epsilon 1e-4. The schedule `falling`
is for shorter runs: the learning rate falls to zero along half a cosine, and averaged weights are
evaluated. With `--single N` the first N steps draw one code and maximise the ELBO at the peak rate,
and the cosine and the chosen objective hold for the others, since a step with 50 draws costs
several times as much. No row was trained with it yet.

The first command trains for 906 epochs; it takes 27 minutes on 2 CPU cores, 23 of them training.
Expect an NLL of 86.36 nats, an ELBO of -90.15 nats and 22 active units. experiments/README.md has
the results for the other rows of the table, and says which were not run.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import optax

import aejax as ae
from aejax.data import Split
from experiments.shared import variational
from experiments.shared.experiment import Experiment
from experiments.shared.images import image_data
from experiments.shared.numbers import Count
from experiments.shared.training import Job, Numbers

HELD_OUT = 400  # number of validation images, as in the paper's code
STAGES = 8  # number of stages; stage i has 3^i epochs
RISE = 1_000  # steps over which the learning rate of `falling` rises from 0


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    steps: Count = 270_000  # optimiser steps; 270000 are 906 epochs with batches of 200
    batch: Count = 200  # examples in a batch
    chunk: Count = 2_000  # steps in one compiled call
    log_every: Count = 100  # steps between two lines of metrics.jsonl
    layers: Literal[1, 2] = 1  # number of stochastic layers
    objective: Literal["vae", "iwae", "dreg"] = "vae"  # the bound that training maximises
    draws: Count = 1  # number of codes drawn for each example at each step, K
    # first optimiser steps, which maximise the ELBO with one draw and cost less; 0: none
    single: int = 0
    schedule: Literal["falling", "stages"] = "falling"  # schedule of the learning rate
    learning_rate: float = 3e-3  # peak learning rate of Adam for `falling`
    nll_draws: Count = 5_000  # samples of the importance-weighted NLL; 5000 in the paper too


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns {"vae": the `Job`, that is the paper's model with its training}."""
    if config.layers == 2 and config.objective == "dreg":
        raise ae.UserError(
            "--objective dreg needs --layers 1: with --layers 2 use --objective iwae"
        )
    if config.single >= config.steps:
        raise ae.UserError(
            f"--single {config.single} leaves none of the {config.steps} steps for the objective: "
            "give a smaller number or more --steps"
        )
    if config.layers == 1:
        bottleneck, prior = ae.Gaussian(50), ae.priors.Standard()
    else:
        bottleneck = ae.UpwardLevels((50, 100), (tanh((100, 100), (2 * 50,)),))
        prior = ae.priors.Levels((tanh((100, 100), (2 * 100,)),))
    model = ae.Autoencoder(
        tanh((200, 200)), bottleneck, tanh((200, 200), event), prior, ae.likelihoods.Bernoulli()
    )
    objective, bound = _objective(config)
    falling = config.schedule == "falling"
    tx = optax.adam(rate(config), eps=1e-8 if falling else 1e-4)
    average = 0.999 if falling else None
    job = Job(model, objective, tx, config.draws, bound, (), average, _start)
    if config.single:
        elbo, mean = _objective(dataclasses.replace(config, objective="vae"))
        first = job._replace(objective=elbo, draws=1, bound=mean, steps=config.single)
        job = job._replace(first=first)
    return {"vae": job}


def tanh(widths: tuple[int, ...], shape: tuple[int, ...] | None = None) -> Any:
    """Returns dense layers with tanh, as in the paper."""
    return ae.nets.MLP(widths, shape, jnp.tanh)


def _objective(config: Config) -> tuple[ae.Objective, ae.Bound]:
    watched = ae.watch(error=ae.losses.squared_error)
    if config.objective == "vae":
        # Two stochastic layers that are drawn from the bottom up have no KL in closed form.
        rate = ae.losses.kl if config.layers == 1 else ae.losses.rate()
        return ae.merge(ae.elbo(rate=rate), watched), ae.bounds.mean
    dreg = config.objective == "dreg"
    rate = ae.losses.rate(stick=dreg)
    bound = ae.bounds.dreg if dreg else ae.bounds.iwae
    if dreg and config.draws == 1:
        bound = ae.bounds.mean  # the only weight is 1, and the gradient that of Roeder et al. 2017
    return ae.merge(ae.elbo(rate=rate), watched), bound


def rate(config: Config) -> optax.Schedule:
    """Returns the schedule of the learning rate, step -> rate."""
    if config.schedule == "falling":
        # The learning rate stays at its peak during the steps with one draw, and falls after them.
        rise, left = min(RISE, config.steps // 10), config.steps - config.single
        if not config.single:
            return optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, rise, config.steps)
        parts = [
            optax.linear_schedule(0.0, config.learning_rate, rise),
            optax.cosine_decay_schedule(config.learning_rate, left),
        ]
        return optax.join_schedules(parts, [config.single])
    # In the paper the stages end after 1, 4, 13, ... of 3,280 epochs. With another number of steps,
    # they end after the same shares of it.
    ends = [round((3**i - 1) / (3**STAGES - 1) * config.steps) for i in range(1, STAGES)]
    rates = [1e-4 * round(10 ** (1 - i / (STAGES - 1)), 1) for i in range(STAGES)]
    return optax.join_schedules([optax.constant_schedule(each) for each in rates], ends)


def _start(train: Split) -> Any:
    """Returns an initialiser that sets the last bias to the logits of the mean train image."""
    images = train.arrays["image"]
    return ae.initialise.base_rates(np.mean(images, axis=0, dtype=np.float64) / 255)


EXPERIMENT = Experiment(
    name="mnist-iwae",
    config=Config,
    data=image_data("mnist", validation=HELD_OUT),
    build=build,
    figures=variational.figures_and_epochs,
    page=lambda config, models, splits: variational.page(
        "The table of Burda et al.", __doc__ or "", models, splits
    ),
)
