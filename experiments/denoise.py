"""Noise and autoencoders: variational, plain, with a flow prior, and PCA at equal latents.

    python -m experiments denoise

Three settings, judged alike by the mean square error against the clean test image:

clean      trained on clean images, shown noisy ones
noisy      trained to reconstruct noisy images, no clean one is ever seen
denoising  trained to give the clean image of a noisy one

with Gaussian noise, salt and pepper, and masking, each at one level while training and at many
while testing. All have a Gaussian likelihood with one learned deviation, so that plain autoencoder,
VAE and PCA minimise squared errors of the same kind. `crossing` and `second_crossing` are the
levels at which a model and the VAE change places, blank where they do not: the page says in words
who is better on which side.

21 minutes of training on one CPU core that had other work as well, 2 more of figures. Expect the
plain autoencoder ahead of the VAE at most levels, and PCA, fitted to the first 4,000 images, ahead
of both where clean training meets much Gaussian noise or salt and pepper; under masking the plain
autoencoder stays ahead of it. Errors stand in the README.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
import optax

import aejax as ae
from aejax import evaluation
from aejax.data import Split, changed, changes
from aejax.types import Array, Batch, Variables
from experiments.shared.driver import Experiment, Measured, Members, Page, Splits
from experiments.shared.place import Place
from experiments.shared.recognition import pictures
from experiments.shared.training import Numbers, Part, Trained, check

SETTINGS = ("clean", "noisy", "denoising")
MODELS = ("vae", "plain", "flow")
NOISES: dict[str, Any] = {
    "gaussian": changes.GaussianNoise,
    "salt-and-pepper": changes.SaltAndPepper,
    "masking": changes.Masking,
}
TRAINED = {"gaussian": 0.4, "salt-and-pepper": 0.3, "masking": 0.5}
LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)  # standard deviations, or shares of the pixels
OTHERS = ("plain", "flow", "pca")  # whom the VAE is compared with
NOISE_SEED = 13  # of the noise on test images


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The experiment's numbers."""

    steps: int = 1_500
    dataset: str = "mnist"
    width: int = 128  # units of the hidden layers
    latents: int = 16  # dimensions of the latent space, and components of PCA
    learning_rate: float = 1e-3  # of Adam, falling to 0 along a cosine
    warmup: int = 300  # steps in which the weight of the rate grows from 0
    tested: int = 2_000  # test images
    fitted: int = 4_000  # train images that PCA is fitted to; the nets see all


def data(config: Config, place: Place) -> Splits:
    """Train, validation and test, as grey values."""
    return ae.data.images(
        config.dataset, binarise="none", data_dir=place.data_dir, manual_dir=place.manual_dir
    )


def build(config: Config, event: tuple[int, ...]) -> dict[str, Part]:
    """Each model on clean images, and on each noise with noisy and with clean targets."""
    check(config, "width", "latents", "tested", "fitted")
    parts = {f"{name}-clean": _part(config, event, name, lambda split: split) for name in MODELS}
    for kind in NOISES:
        for setting in SETTINGS[1:]:
            view = partial(_corrupted, kind=kind, level=TRAINED[kind], setting=setting)
            for name in MODELS:
                parts[part_name(name, setting, kind)] = _part(config, event, name, view)
    return parts


def _corrupted(split: Split, kind: str, level: float, setting: str) -> Split:
    return changed(split, changes.Corrupted(NOISES[kind](level), clean=setting == "denoising"))


def _part(config: Config, event: tuple[int, ...], name: str, view: Any) -> Part:
    nets = (
        ae.nets.MLP((config.width,), activation=jax.nn.silu),
        ae.nets.MLP((config.width,), shape=event, activation=jax.nn.silu),
    )
    likelihood = ae.likelihoods.LearnedGaussian(start=0.3)
    bottleneck = ae.Point(config.latents) if name == "plain" else ae.Gaussian(config.latents)
    priors: dict[str, Any] = {
        "vae": ae.priors.Standard(),
        "flow": ae.priors.Flow(4, (64,)),
        "plain": None,
    }
    model = ae.Autoencoder(nets[0], bottleneck, nets[1], priors[name], likelihood)
    beta = optax.linear_schedule(0.0, 1.0, max(config.warmup, 1))
    rate = ae.losses.kl if name == "vae" else ae.losses.rate()
    objective = ae.reconstruction() if name == "plain" else ae.elbo(beta, rate)
    tx = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
    return Part(model, objective, tx, average=0.99, view=view)


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Mean square errors against the clean image: rows of setting, noise and model, over levels."""
    test = splits[2].take(config.tested)
    clean = pictures(test)
    rows: dict[str, dict[str, Any]] = {}
    for kind in NOISES:
        noisy = {level: noised(test, kind, level) for level in LEVELS}
        for setting in SETTINGS:
            for name in MODELS:
                part = trained[part_name(name, setting, kind)]
                rows[row_name(setting, kind, name)] = _errors(part, noisy, clean)
            pca = _components(splits[0].take(config.fitted), config.latents, kind, setting)
            rows[row_name(setting, kind, "pca")] = {
                f"{level:g}": np.mean(np.square(_projected(pca, x) - clean))
                for level, x in noisy.items()
            }
            for other in OTHERS:
                levels = [*crossings(differences(rows, setting, kind, other)), np.nan, np.nan]
                first_two = {"crossing": levels[0], "second_crossing": levels[1]}
                rows[row_name(setting, kind, other)] |= first_two
    return rows


def noised(split: Split, kind: str, level: float) -> np.ndarray:
    """The split's pictures with noise that is the same for every model, f32[N, *event]."""
    noise = NOISES[kind](level)
    return np.asarray(noise(jax.random.key(NOISE_SEED), pictures(split)))


def row_name(setting: str, kind: str, model: str) -> str:
    """Of one row of the table."""
    return f"{setting}, {kind}: {model}"


def part_name(name: str, setting: str, kind: str) -> str:
    """Of the part that is trained for a setting and a noise; clean ones know of no noise."""
    return f"{name}-clean" if setting == "clean" else f"{name}-{setting}-{kind}"


def _errors(part: Trained, noisy: Mapping[float, np.ndarray], clean: np.ndarray) -> dict[str, Any]:
    """Level -> mean square error of each seed, f64[S]."""
    run = denoiser(part.part.model)

    def one(variables: Variables) -> dict[str, Any]:
        return {
            f"{level:g}": np.mean(np.square(np.asarray(run(variables, x)) - clean))
            for level, x in noisy.items()
        }

    return evaluation.over_seeds(one, part.variables, part.seeds)


def denoiser(model: ae.Autoencoder) -> Callable[[Variables, Any], Array]:
    """(variables, noisy pictures) -> what the model makes of them, without noise of its own."""

    def run(bound: Any, x: Array) -> Array:
        return bound.mean(bound(Batch(x, x)).prediction)

    return jax.jit(lambda variables, x: model.apply(variables, x, method=run))


def _components(train: Split, latents: int, kind: str, setting: str) -> Any:
    """PCA of the inputs; for denoising its scores are mapped to clean images by least squares."""
    clean = pictures(train)
    x = clean if setting == "clean" else noised(train, kind, TRAINED[kind])
    found = evaluation.principal(x, latents)
    if setting != "denoising":
        return found, found.directions, found.mean
    scores = np.concatenate([evaluation.project(found, x), np.ones((len(x), 1))], axis=1)
    weights = np.linalg.lstsq(scores, clean.reshape(len(clean), -1), rcond=None)[0]
    return found, weights[:-1], weights[-1]


def _projected(components: Any, x: np.ndarray) -> np.ndarray:
    found, directions, mean = components
    return (evaluation.project(found, x) @ directions + mean).reshape(x.shape)


def differences(rows: Mapping[str, Any], setting: str, kind: str, other: str) -> list[float]:
    """The VAE's error less another's at each level: negative where the VAE is better."""
    own, its = (rows[row_name(setting, kind, name)] for name in ("vae", other))
    return [mean(own[f"{level:g}"]) - mean(its[f"{level:g}"]) for level in LEVELS]


def crossings(gaps: Sequence[float]) -> list[float]:
    """The levels at which differences change their sign, linear between LEVELS."""
    found = []
    for i in range(1, len(LEVELS)):
        if gaps[i - 1] * gaps[i] < 0:
            share = gaps[i - 1] / (gaps[i - 1] - gaps[i])
            found.append(LEVELS[i - 1] + share * (LEVELS[i] - LEVELS[i - 1]))
    return found


def mean(value: Any) -> float:
    """Of a figure over seeds, as measured or as read from result.json."""
    return float(value["mean"]) if isinstance(value, Mapping) else float(np.mean(value))


def measured(config: Config, found: Measured) -> list[Any]:
    """The errors over noise levels, and who wins where, in words."""
    del config
    from experiments import denoise_page

    return denoise_page.sections(found.result)


def page(config: Config, models: dict[str, tuple[Any, Variables]], splits: Splits) -> Page:
    """Noisy test images and what each model makes of them."""
    from experiments import denoise_page

    sections = denoise_page.pictures_of(models, splits[2])
    return Page(f"Noise on {config.dataset}", __doc__ or "", sections)


EXPERIMENT = Experiment(
    name="denoise",
    config=Config,
    data=data,
    build=build,
    figures=figures,
    page=page,
    measured=measured,
)
