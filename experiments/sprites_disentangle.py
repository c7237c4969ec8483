"""Six methods that disentangle the factors of sprites, with many seeds each, and ten scores.

    python -m experiments sprites-disentangle --seeds 10
    python -m experiments sprites-disentangle --preset paper       # for accelerators

aejax.data.pictures.sprites renders 30,720 binary images of 32x32 pixels from known factors: shape,
scale, orientation, x and y. The methods beta-VAE, annealed capacity, FactorVAE, DIP-VAE I and II
and beta-TCVAE have the same nets, data and number of steps. Scores are computed from posterior
means of the whole data set. The scores of shuffled codes are those of a code without information.
Ten seeds take 22 minutes on one shared CPU core, 11 of them CPU time. Expect beta-TCVAE and
FactorVAE to be the best methods by most scores, and annealed capacity to be the worst by seven of
ten. `--preset paper` is the protocol of Locatello et al. 2019: convolutional nets, images of 64x64
pixels, 300,000 steps with batches of 64, and six regularisation strengths of each method with 50
seeds each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import jax
import numpy as np
import optax

import aejax as ae
from aejax import evaluation
from aejax.data.pictures.sprites import GRIDS
from aejax.evaluation import disentanglement as scores
from aejax.report import Picture, Section, traversals_section
from aejax.report.drawing import plots
from aejax.report.results import groups
from aejax.types import Objective, Variables
from experiments.shared.experiment import Experiment, Finished, Members, Models, Page, Splits
from experiments.shared.images import image_data
from experiments.shared.numbers import Count
from experiments.shared.place import say
from experiments.shared.training import Job, Numbers
from experiments.shared.variational import TEST_SEED

GAMMA = 1000.0  # weight of the term of annealed capacity (Burgess et al. 2018)
# The regularisation strengths of the protocol of Locatello et al. 2019; with `--strengths 1` only
# the third one is used.
STRENGTHS = {
    "beta-vae": (1.0, 2.0, 4.0, 6.0, 8.0, 16.0),  # beta
    "annealed": (5.0, 10.0, 25.0, 50.0, 75.0, 100.0),  # nats of capacity at the end of annealing
    "factor-vae": (10.0, 20.0, 30.0, 40.0, 50.0, 100.0),  # gamma
    "dip-vae-i": (1.0, 2.0, 5.0, 10.0, 20.0, 50.0),  # lambda_od; lambda_d is 10 times it
    "dip-vae-ii": (1.0, 2.0, 5.0, 10.0, 20.0, 50.0),  # lambda_od and lambda_d
    "beta-tcvae": (1.0, 2.0, 4.0, 6.0, 8.0, 10.0),  # beta
}
TITLES = {
    "beta-vae": "β-VAE",
    "annealed": "annealed capacity",
    "factor-vae": "FactorVAE",
    "dip-vae-i": "DIP-VAE I",
    "dip-vae-ii": "DIP-VAE II",
    "beta-tcvae": "β-TCVAE",
}
SHUFFLED = "shuffled codes"


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    seeds: Count = 10  # number of models with different seeds, trained together in one program
    steps: Count = 2_500  # optimiser steps
    batch: Count = 64  # examples in a batch
    chunk: Count = 500  # steps in one compiled call
    log_every: Count = 100  # steps between two lines of metrics.jsonl
    dataset: Literal["sprites", "sprites64"] = "sprites"  # images of 32x32 or of 64x64 pixels
    net: Literal["mlp", "conv"] = "mlp"  # type of encoder and decoder
    width: Count = 128  # units of each hidden layer of mlp
    critic: Count = 128  # units of each hidden layer of FactorVAE's critic
    critic_layers: Count = 3  # number of the critic's hidden layers
    latents: Count = 10  # number of latents
    strengths: Count = 1  # number of strengths of each method, from 1 to 6
    learning_rate: float = 1e-3  # learning rate of Adam
    points: Count = (
        1_000  # examples to train the classifiers of the scores on; half as many to test
    )
    draws: Count = 200  # samples of each code for the mutual information gap of samples
    trees: Literal["forest", "boosted"] = "forest"  # trees of DCI; disentanglement_lib: boosted


PAPER = Config(
    seeds=50,
    steps=300_000,
    dataset="sprites64",
    net="conv",
    critic=1_000,
    critic_layers=6,
    strengths=6,
    learning_rate=1e-4,
    points=10_000,
    draws=2_000,
    trees="boosted",
)


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns name -> `Job` (a model and its training) for each method and strength."""
    jobs = {}
    for method, strengths in STRENGTHS.items():
        chosen = strengths[2:3] if config.strengths == 1 else strengths[: config.strengths]
        for strength in chosen:
            label = method if config.strengths == 1 else f"{method}-{strength:g}"
            model, tx = _model(config, event, adversarial=method == "factor-vae")
            jobs[label] = Job(model, objective(method, strength, config), tx)
    return jobs


def objective(method: str, strength: float, config: Config) -> Objective:
    """Returns the objective of a method with a regularisation strength."""
    if method == "beta-vae":
        return ae.elbo(beta=strength)
    if method == "annealed":
        limit = optax.linear_schedule(0.0, strength, max(config.steps // 3, 1))
        capacity = ae.losses.capacity(limit)
        return {"capacity": (GAMMA, capacity), "distortion": (1.0, ae.losses.distortion)}
    extra: Objective
    if method == "factor-vae":
        critic = ae.losses.critic()
        extra = {"tc": (strength, ae.losses.density_ratio()), "critic": (1.0, critic)}
    elif method == "beta-tcvae":
        examples = round(0.8 * np.prod(GRIDS[config.dataset].sizes))
        extra = {"tc": (strength - 1.0, ae.losses.total_correlation(examples))}
    else:
        term = {"dip-vae-i": ae.losses.dip_i(10.0), "dip-vae-ii": ae.losses.dip_ii(1.0)}[method]
        extra = {"dip": (strength, term)}
    return ae.merge(ae.elbo(), extra)


def _model(config: Config, event: tuple[int, ...], adversarial: bool) -> tuple[Any, Any]:
    """Builds the autoencoder, with a critic if the method is adversarial, and its optimiser."""
    if config.net == "conv":
        encoder, decoder = ae.nets.Strided(), ae.nets.Transposed(event)
    else:
        widths = (config.width, config.width)
        encoder, decoder = ae.nets.MLP(widths), ae.nets.MLP(widths, shape=event)
    tx = optax.adam(config.learning_rate)
    parts = {}
    if adversarial:
        hidden = (config.critic,) * config.critic_layers
        parts = {"critic": ae.nets.MLP(hidden, shape=(1,), activation=jax.nn.leaky_relu)}
        # The moving averages of the critic's Adam are shorter (Kim and Mnih 2018, appendix A).
        quick = optax.adam(config.learning_rate, b1=0.5, b2=0.9)
        tx = optax.multi_transform({"critic": quick, "vae": tx}, _side)
    model = ae.Autoencoder(
        encoder,
        ae.Gaussian(config.latents),
        decoder,
        ae.priors.Standard(),
        ae.likelihoods.Bernoulli(),
        parts=parts,
    )
    return model, tx


def _side(params: Any) -> Any:
    """Returns the label of each parameter's optimiser: "critic" in the critic, else "vae"."""
    return {part: "critic" if part == "parts_critic" else "vae" for part in params}


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Computes the scores of each method and seed, and those of shuffled codes."""
    factors = _stacked(splits)
    result: dict[str, Any] = {}
    for label, done in trained.items():
        say(f"scores of {label}, for each of {done.seeds} seed(s)")
        model = done.job.model

        def one(variables: Variables, model: Any = model) -> dict[str, Any]:
            mean, log_std = _codes(model, variables, splits)
            key = jax.random.key(TEST_SEED)
            bound = evaluation.means(evaluation.elbo(model, variables, splits[2], key))
            units = evaluation.active_units(model, variables, splits[2])
            own = {name: bound[name] for name in ("rate", "distortion")}
            return {**scored(config, mean, log_std, factors), **own, "active_units": units.count}

        result[label] = evaluation.over_seeds(one, done.variables, done.seeds)
    first = next(iter(trained.values()))
    mean, log_std = _codes(first.job.model, next(_members(first)), splits)
    order = np.random.default_rng(0).permutation(len(mean))
    result[SHUFFLED] = {
        name: np.array([value])
        for name, value in scored(config, mean[order], log_std[order], factors).items()
    }
    return result


def scored(
    config: Config, mean: np.ndarray, log_std: np.ndarray, factors: np.ndarray
) -> dict[str, float]:
    """Computes all scores from the posteriors of the whole data set and its factors.

    Two scores leave out the factor "shape": `sap_of_regression`, because shapes have no order, and
    `mig_of_samples`, as in Chen et al. 2018.

    Args:
      config: the experiment's settings.
      mean: f[N, L], the posterior means.
      log_std: f[N, L], the logarithms of the posterior standard deviations.
      factors: i[N, 5], the factors of variation.
    """
    points = {"train": config.points, "test": config.points // 2}
    dci = scores.dci(mean, factors, **points, classifier=_forest(config))
    return {
        "beta_vae_score": scores.beta_vae_score(mean, factors, **points),
        "factor_vae_score": scores.factor_vae_score(mean, factors, **points),
        "mig_of_means": scores.mig_of_means(mean, factors),
        "mig_of_samples": scores.mig_of_samples(
            mean, log_std, factors[:, 1:], samples=config.draws
        ),
        "dci_disentanglement": dci.disentanglement,
        "dci_completeness": dci.completeness,
        "dci_informativeness": dci.informativeness,
        "sap_of_threshold": scores.sap_of_threshold(mean, factors, **points),
        "sap_of_regression": scores.sap_of_regression(mean, factors[:, 1:]),
        "modularity": scores.modularity(mean, factors),
    }


def _forest(config: Config) -> Callable[[], Any] | None:
    """Returns a function that makes a random forest for DCI, or None for boosted trees.

    The paper of DCI uses random forests.
    """
    if config.trees == "boosted":
        return None
    from sklearn.ensemble import RandomForestClassifier

    return partial(RandomForestClassifier, 30, random_state=0, n_jobs=-1)


def _stacked(splits: Splits) -> np.ndarray:
    """Returns the factors of the whole data set, i[N, 5]."""
    each = [np.stack(list(split.factors.values()), axis=1) for split in splits]
    return np.concatenate(each)


def _codes(model: Any, variables: Variables, splits: Splits) -> tuple[np.ndarray, np.ndarray]:
    """Returns the means and log_stds of the posteriors of the whole data set, f32[N, L] each."""
    found = [evaluation.posteriors(model, variables, split, batch=2048) for split in splits]
    return np.concatenate([p.mean for p in found]), np.concatenate([p.log_std for p in found])


def _members(done: Any) -> Any:
    return evaluation.each(done.variables, done.seeds)


def page(config: Config, models: Models, splits: Splits) -> Page:
    """Builds the report page, which shows latent traversals of each method's first model."""
    shown = {label: models[label] for label in list(models)[:: config.strengths]}
    return Page("Disentangling sprites", __doc__ or "", [traversals_section(shown, splits[2])])


def findings(config: Config, finished: Finished) -> list[Any]:
    """Builds the section that plots the scores of all methods and seeds, a panel for each score."""
    rows = groups(finished.result)
    level = {name: figure.mean for name, figure in rows.pop(SHUFFLED, {}).items()}
    values = {}
    for method, title in TITLES.items():
        of = [rows[label] for label in rows if label == method or label.startswith(f"{method}-")]
        values[title] = {name: [v for row in of for v in row[name].values] for name in NAMES}
    picture = Picture(
        "scores",
        "Every point is one seed, and a thick line is the median over seeds. Higher is more "
        "disentangled. The dashed line is the score of shuffled codes, which carry no information. "
        "MIG, DCI, SAP and modularity range from 0 to 1. The two accuracies range from chance, "
        "which is one in five, to 1.",
        partial(plots.distributions, values=values, names=NAMES, level=level, level_name=SHUFFLED),
    )
    text = (
        f"Ten scores of {config.seeds} seeds of each method with the same nets, steps and data. "
        "As Locatello et al. 2019 found, seeds of one method differ about as much as methods do, "
        "so one seed says little about a method."
    )
    return [Section("Scores", text, [picture])]


NAMES = {
    "beta_vae_score": "beta-VAE score",
    "factor_vae_score": "FactorVAE score",
    "mig_of_means": "MIG of means",
    "mig_of_samples": "MIG of samples",
    "modularity": "modularity",
    "dci_disentanglement": "DCI disentangl.",
    "dci_completeness": "DCI completeness",
    "dci_informativeness": "DCI informative.",
    "sap_of_threshold": "SAP, threshold",
    "sap_of_regression": "SAP, regression",
}

EXPERIMENT = Experiment(
    name="sprites-disentangle",
    config=Config,
    data=image_data(binarise="static"),
    build=build,
    figures=figures,
    page=page,
    findings=findings,
    presets={"paper": PAPER},
)
