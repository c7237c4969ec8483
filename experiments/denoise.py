"""Robustness to noise and denoising: VAE, VAE with a flow prior, plain autoencoder and PCA.

    python -m experiments denoise

There are three settings:

clean      models are trained on clean images
noisy      models are trained to reconstruct noisy images, without any clean ones
denoising  models are trained to predict the clean image from a noisy one

All are evaluated by the mean square error between the clean test image and the reconstruction of
the noisy one. The noise is Gaussian, salt and pepper, or masking, with one level during training
and many levels at test time. All models have the same number of latents and a Gaussian likelihood
with one learned standard deviation, so that the plain autoencoder, the VAE and PCA all minimise
squared errors. `crossing` and `second_crossing` are the noise levels at which the VAE and another
model change ranks; they are blank if there is no such level. The report page says which model is
better at which levels.

Training takes 21 minutes on one shared CPU core, and evaluation 2 more. Expect the plain
autoencoder to have lower errors than the VAE at most levels. In the setting `clean`, expect PCA,
fitted to the first 4,000 images, to have the lowest errors at high levels of Gaussian noise or of
salt and pepper, and the plain autoencoder to have lower errors than PCA with masking.
experiments/README.md has the errors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import optax

import aejax as ae
from aejax import evaluation
from aejax.data import Split, changed, changes
from aejax.evaluation.examples import chosen, varied
from aejax.report import Picture, Section
from aejax.report.drawing import plots
from aejax.report.drawing.style import LIGHT, SIZE, Theme, canvas, legend
from aejax.types import Variables
from experiments.shared import variational
from experiments.shared.experiment import Experiment, Finished, Members, Models, Page, Splits
from experiments.shared.images import image_data, pictures
from experiments.shared.noise import (
    LEVELS,
    MODELS,
    NOISES,
    OTHERS,
    SETTINGS,
    TRAINED,
    crossings,
    denoiser,
    differences,
    job_name,
    mean,
    noised,
    row_name,
)
from experiments.shared.numbers import Count
from experiments.shared.training import Job, Numbers, Trained

NAMES = {"vae": "VAE", "plain": "plain", "flow": "VAE, flow prior", "pca": "PCA"}
TITLES = {
    "clean": "trained on clean images",
    "noisy": "trained on noisy images alone",
    "denoising": "trained to denoise",
}
AXES = {
    "gaussian": "standard deviation of Gaussian noise",
    "salt-and-pepper": "share of salt and pepper",
    "masking": "share of masked pixels",
}


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    steps: Count = 1_500  # optimiser steps
    dataset: str = "mnist"  # name of a data set, or path of a folder of images
    width: Count = 128  # units of each hidden layer
    latents: Count = 16  # number of latents, and of components of PCA
    learning_rate: float = 1e-3  # learning rate of Adam; falls to 0 along a cosine
    warmup: int = 300  # steps over which the weight of the rate grows from 0
    tested: Count = 2_000  # number of test images
    fitted: Count = 4_000  # number of train images for PCA; the nets are trained on all


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns name -> `Job` (a model and its training) for each model, setting and type of noise.

    The setting "clean" has one job for each model, because it has no noise during training.
    """
    jobs = {f"{name}-clean": _job(config, event, name, lambda split: split) for name in MODELS}
    for kind in NOISES:
        for setting in SETTINGS[1:]:
            view = partial(_corrupted, kind=kind, level=TRAINED[kind], setting=setting)
            for name in MODELS:
                jobs[job_name(name, setting, kind)] = _job(config, event, name, view)
    return jobs


def _corrupted(split: Split, kind: str, level: float, setting: str) -> Split:
    return changed(split, changes.Corrupted(NOISES[kind](level), clean=setting == "denoising"))


def _job(config: Config, event: tuple[int, ...], name: str, view: Any) -> Job:
    encoder, decoder = variational.nets("mlp", event, config.width)
    likelihood = ae.likelihoods.LearnedGaussian(start=0.3)
    bottleneck = ae.Point(config.latents) if name == "plain" else ae.Gaussian(config.latents)
    priors: dict[str, Any] = {
        "vae": ae.priors.Standard(),
        "flow": ae.priors.Flow(4, (64,)),
        "plain": None,
    }
    model = ae.Autoencoder(encoder, bottleneck, decoder, priors[name], likelihood)
    beta = optax.linear_schedule(0.0, 1.0, max(config.warmup, 1))
    rate = ae.losses.kl if name == "vae" else ae.losses.rate()
    objective = ae.reconstruction() if name == "plain" else ae.elbo(beta, rate)
    tx = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
    return Job(model, objective, tx, average=0.99, view=view)


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Computes mean square errors from clean images, and the noise levels where ranks change.

    The result has a row for each setting, type of noise and model, with an error for each level.
    """
    test = splits[2].take(config.tested)
    clean = pictures(test)
    rows: dict[str, dict[str, Any]] = {}
    for kind in NOISES:
        noisy = {level: noised(test, kind, level) for level in LEVELS}
        for setting in SETTINGS:
            for name in MODELS:
                done = trained[job_name(name, setting, kind)]
                rows[row_name(setting, kind, name)] = _errors(done, noisy, clean)
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


def _errors(done: Trained, noisy: Mapping[float, np.ndarray], clean: np.ndarray) -> dict[str, Any]:
    """Computes the mean square errors of a job's denoised images, level of noise -> f64[S].

    Args:
      done: the trained job, with S seeds.
      noisy: level of noise -> the noisy test images.
      clean: the clean test images.
    """
    run = denoiser(done.job.model)

    def one(variables: Variables) -> dict[str, Any]:
        return {
            f"{level:g}": np.mean(np.square(np.asarray(run(variables, x)) - clean))
            for level, x in noisy.items()
        }

    return evaluation.over_seeds(one, done.variables, done.seeds)


def _components(train: Split, latents: int, kind: str, setting: str) -> Any:
    """Returns the PCA of the train inputs, and a linear map from its coordinates to images.

    The map is a matrix and a mean. In the setting "denoising", it is fitted to the clean images by
    least squares.
    """
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


def findings(config: Config, finished: Finished) -> list[Section]:
    """Builds the section with a plot and a description of the errors at all noise levels."""
    picture = Picture(
        "errors",
        "The mean square error against the clean test image over the level of noise. A dotted line "
        "marks the level during training. Lower is better.",
        partial(error_plots, result=finished.result),
    )
    text = "\n\n".join(
        sentence(finished.result, setting, kind) for setting in SETTINGS for kind in AXES
    )
    return [Section("Error over noise", text, [picture])]


def sentence(result: Mapping[str, Any], setting: str, kind: str) -> str:
    """Returns a sentence that says at which levels of a type of noise the VAE is better or worse.

    It compares the VAE with each of the other models.
    """
    said = [verdict(differences(result, setting, kind, name), NAMES[name]) for name in OTHERS]
    noise = kind.replace("-", " ").capitalize()
    return f"{noise}, {TITLES[setting]}: the VAE {'; '.join(said)}."


def verdict(gaps: Sequence[float], other: str) -> str:
    """Returns a comparison of two models, such as "beats PCA below 0.31 and loses above".

    Args:
      gaps: the error of the VAE minus that of the other model, at each of LEVELS.
      other: the name of the other model.
    """
    levels, wins = crossings(gaps), gaps[0] < 0
    first = f"{'beats' if wins else 'loses to'} {other}"
    if not levels:
        return f"{first} at every level"
    said = [f"{first} below {levels[0]:.2f}"]
    for level in levels[1:]:
        wins = not wins
        said.append(f"{'wins' if wins else 'loses'} up to {level:.2f}")
    return f"{', '.join(said)} and {'loses' if wins else 'wins'} above"


def error_plots(result: Mapping[str, Any], theme: Theme = LIGHT) -> Any:
    """Plots errors over noise levels, with a row of panels for each setting.

    A row has a panel for each type of noise, and a panel has a line for each model.
    """
    width, height = 8.9, 7.4
    figure = canvas(width, height, theme)
    wide, tall, left, bottom = 2.42, 1.72, 0.55, 0.5
    for row, setting in enumerate(SETTINGS):
        for column, kind in enumerate(AXES):
            x, y = left + column * (wide + 0.48), bottom + (2 - row) * (tall + 0.6)
            place = (x / width, y / height, wide / width, tall / height)
            axes = figure.add_axes(place, facecolor="none")
            _lines(axes, result, setting, kind, theme)
            if row == 2:
                axes.set_xlabel(AXES[kind], color=theme.muted, fontsize=SIZE - 1)
            if column == 0:
                look = {"color": theme.ink, "fontsize": SIZE + 0.5}
                title = f"{TITLES[setting].capitalize()}: mean square error"
                figure.text(0, (y + tall + 0.16) / height, title, **look)
            if row == 0 and column == 2:
                legend(axes, theme, loc="lower right", bbox_to_anchor=(1.02, 1.04), ncols=4)
    return figure


def _lines(axes: Any, result: Mapping[str, Any], setting: str, kind: str, theme: Theme) -> None:
    colours = (*theme.series[:2], theme.classes[4], theme.series[2])
    for name, colour in zip(NAMES, colours, strict=True):
        row = result[row_name(setting, kind, name)]
        means = [mean(row[f"{level:g}"]) for level in LEVELS]
        dash = "--" if name == "pca" else "-"
        axes.plot(LEVELS, means, dash, color=colour, lw=1.5, label=NAMES[name], marker="o", ms=2.5)
    if setting != "clean":
        axes.axvline(TRAINED[kind], color=theme.muted, lw=0.8, ls=":")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=theme.rule, lw=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(theme.rule)
    axes.tick_params(color=theme.rule, labelcolor=theme.muted, labelsize=SIZE - 1.5)
    axes.set_axisbelow(True)


def page(config: Config, models: Models, splits: Splits) -> Page:
    """Builds the report page: clean, noisy and denoised test images for each type of noise."""
    test = splits[2]
    numbers = varied(test.labels, 10, len(test))
    clean = np.asarray(chosen(test, numbers).target)
    found = []
    for kind, level in TRAINED.items():
        noisy = noised(test, kind, level)[numbers]
        rows, labels = [clean, np.clip(noisy, 0, 1)], ["clean", "noisy"]
        for setting in SETTINGS:
            for name in MODELS[:2]:
                model, variables = models[job_name(name, setting, kind)]
                rows.append(np.clip(denoiser(model)(variables, noisy), 0, 1))
                labels.append(f"{NAMES[name]},\n{setting}")
        found.append(
            Picture(
                f"denoised-{kind}",
                f"{kind.replace('-', ' ').capitalize()} noise at level {level:g}, and the images "
                "that each model reconstructs in each setting.",
                partial(plots.image_grid, images=np.stack(rows), row_labels=labels, tile=48),
            )
        )
    text = "Reconstructions of the same noisy images in each setting."
    return Page(f"Noise on {config.dataset}", __doc__ or "", [Section("Test images", text, found)])


EXPERIMENT = Experiment(
    name="denoise",
    config=Config,
    data=image_data(binarise="none"),
    build=build,
    figures=figures,
    page=page,
    findings=findings,
)
