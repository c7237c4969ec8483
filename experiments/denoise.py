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
autoencoder stays ahead of it. Errors stand in README.md.
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
from experiments.shared.experiment import Experiment, Measured, Members, Models, Page, Splits
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
    mean,
    noised,
    part_name,
    row_name,
)
from experiments.shared.training import Numbers, Part, Trained, check

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
    """The experiment's numbers."""

    steps: int = 1_500
    dataset: str = "mnist"
    width: int = 128  # units of the hidden layers
    latents: int = 16  # dimensions of the latent space, and components of PCA
    learning_rate: float = 1e-3  # of Adam, falling to 0 along a cosine
    warmup: int = 300  # steps in which the weight of the rate grows from 0
    tested: int = 2_000  # test images
    fitted: int = 4_000  # train images that PCA is fitted to; the nets see all


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


def _errors(part: Trained, noisy: Mapping[float, np.ndarray], clean: np.ndarray) -> dict[str, Any]:
    """Level -> mean square error of each seed, f64[S]."""
    run = denoiser(part.part.model)

    def one(variables: Variables) -> dict[str, Any]:
        return {
            f"{level:g}": np.mean(np.square(np.asarray(run(variables, x)) - clean))
            for level, x in noisy.items()
        }

    return evaluation.over_seeds(one, part.variables, part.seeds)


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


def measured(config: Config, found: Measured) -> list[Section]:
    """The errors over noise levels as nine plots, and who is better where, in words."""
    picture = Picture(
        "errors",
        "Mean square error against the clean test image over the level of noise; a dotted line "
        "marks the level while training. Lower is better.",
        partial(error_plots, result=found.result),
    )
    text = "\n\n".join(
        sentence(found.result, setting, kind) for setting in SETTINGS for kind in AXES
    )
    return [Section("Error over noise", text, [picture])]


def sentence(result: Mapping[str, Any], setting: str, kind: str) -> str:
    """Who is better than whom, and from which level on, for one setting and noise."""
    said = [verdict(differences(result, setting, kind, name), NAMES[name]) for name in OTHERS]
    noise = kind.replace("-", " ").capitalize()
    return f"{noise}, {TITLES[setting]}: the VAE {'; '.join(said)}."


def verdict(gaps: Sequence[float], other: str) -> str:
    """Of differences of errors, the VAE's less the other's: "beats PCA below 0.31, loses above"."""
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
    """Rows: settings; columns: kinds of noise; one line a model."""
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
    """For each noise: clean and noisy test images, and what the models make of them."""
    test = splits[2]
    numbers = varied(test.labels, 10, len(test))
    clean = np.asarray(chosen(test, numbers).target)
    found = []
    for kind, level in TRAINED.items():
        noisy = noised(test, kind, level)[numbers]
        rows, labels = [clean, np.clip(noisy, 0, 1)], ["clean", "noisy"]
        for setting in SETTINGS:
            for name in MODELS[:2]:
                model, variables = models[part_name(name, setting, kind)]
                rows.append(np.clip(denoiser(model)(variables, noisy), 0, 1))
                labels.append(f"{NAMES[name]},\n{setting}")
        found.append(
            Picture(
                f"denoised-{kind}",
                f"{kind.replace('-', ' ').capitalize()} noise at {level:g}; below each model "
                "stands how it was trained.",
                partial(plots.image_grid, images=np.stack(rows), row_labels=labels, tile=48),
            )
        )
    text = "What each setting makes of the same noisy images."
    return Page(f"Noise on {config.dataset}", __doc__ or "", [Section("Test images", text, found)])


EXPERIMENT = Experiment(
    name="denoise",
    config=Config,
    data=image_data(binarise="none"),
    build=build,
    figures=figures,
    page=page,
    measured=measured,
)
