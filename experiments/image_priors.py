"""Standard normal against VampPrior, at one level, two, and two with convolutional features.

    python -m experiments image-priors --model hvae --prior vamp
    python -m experiments image-priors --model convhvae --prior vamp --dataset fashion_mnist

The nets of Tomczak and Welling 2018: gated layers of 300 units, 40 latents a level, 500
pseudo-inputs; 50,000 images trained on, drawn anew at every step, 10,000 to look at, 10,000
binarised once to test. Adam at 5e-4 and batches of 100; the weight of the rate grows over the first
5 % of the steps, as in the paper's 100 of 2,000 epochs. Unlike there gradients are not normalised
tensor by tensor, log deviations not clipped, and nothing is stopped early: averaged weights of the
last step are evaluated, over K = 5000 draws. The convhvae is for accelerators: on one CPU core a
step takes seconds, so `--tested` and `--nll-draws` make its figures affordable there, not exact.

On one CPU core `--model vae --prior standard --seeds 3 --steps 20000 --learning-rate 1e-3
--nll-draws 500` took 10 minutes of training and came to an NLL of 88.37 +- 0.16; all rows stand in
README.md.
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
from experiments.shared.training import Numbers, Part, check


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The experiment's numbers."""

    steps: int = 50_000  # 100 epochs
    chunk: int = 1_000
    log_every: int = 100
    dataset: Literal["mnist", "fashion_mnist"] = "mnist"
    model: hierarchies.Kind = "vae"
    prior: Literal["standard", "vamp"] = "vamp"
    latents: int = 40  # of each level
    width: int = 300  # gated units of the dense layers
    pseudo_inputs: int = 500
    learning_rate: float = 5e-4  # of Adam; the weights are averaged instead of it falling
    nll_draws: int = 5_000  # of the importance-weighted NLL; as in the paper
    tested: int = 10_000  # test examples, the first


def build(config: Config, event: tuple[int, ...]) -> dict[str, Part]:
    """The model under its prior."""
    check(config, "latents", "width", "pseudo_inputs", "nll_draws", "tested")
    vamp = config.prior == "vamp"
    top = ae.priors.Vamp(event, config.pseudo_inputs) if vamp else ae.priors.Standard()
    model = hierarchies.model(config.model, event, config.latents, config.width, top)
    beta = optax.linear_schedule(0.0, 1.0, max(config.steps // 20, 1))
    # A VampPrior has no KL in closed form.
    objective = ae.elbo(beta, ae.losses.rate() if vamp else ae.losses.kl)
    watched = ae.watch(error=ae.losses.squared_error)
    tx = optax.adam(config.learning_rate)
    return {"vae": Part(model, ae.merge(objective, watched), tx, average=0.999)}


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """The test figures, and the epochs that the steps were."""
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
