"""The figure, the sentences and the pictures of the noise experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from aejax.data import Split
from aejax.evaluation import decoding as gather
from aejax.report import Picture, Section
from aejax.report.drawing import plots as figures
from aejax.report.drawing.style import LIGHT, SIZE, Theme, canvas, legend
from aejax.types import Variables
from experiments.denoise import (
    LEVELS,
    MODELS,
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


def sections(result: Mapping[str, Any]) -> list[Section]:
    """What was measured: nine plots, and who is better where."""
    picture = Picture(
        "errors",
        "Mean square error against the clean test image over the level of noise; a dotted line "
        "marks the level while training. Lower is better.",
        partial(error_plots, result=result),
    )
    text = "\n\n".join(sentence(result, setting, kind) for setting in SETTINGS for kind in AXES)
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


def pictures_of(models: dict[str, tuple[Any, Variables]], test: Split) -> list[Section]:
    """For each noise: clean and noisy test images, and what the models make of them."""
    numbers = gather.varied(test.labels, 10, len(test))
    clean = np.asarray(gather.chosen(test, numbers).target)
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
                partial(figures.image_grid, images=np.stack(rows), row_labels=labels, tile=48),
            )
        )
    return [Section("Test images", "What each setting makes of the same noisy images.", found)]
