"""Comparison of sparse autoencoders: plots of scores, such as explained variance, against L0.

Here a code is one kind of sparse bottleneck, such as TopK, trained for several values of L0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from aejax.report.drawing import plots
from aejax.report.drawing.style import LIGHT, SIZE, WIDTH, Theme, canvas, legend, line_look, panel
from aejax.report.page import Picture, Section
from aejax.report.results import spoken

# Name of a score in result.json -> the title of its panel.
NAMES = {
    "explained_variance": "explained variance",
    "mcc": "mean correlation with the true features, MCC",
    "label_entropy": "label entropy of a unit's top examples, nats",
}


class Points(NamedTuple):
    """One score of P models with the same code, in increasing order of L0."""

    l0: np.ndarray  # f[P], the measured mean number of active latents
    value: np.ndarray  # f[P], the mean of the score over seeds
    error: np.ndarray  # f[P], the standard error of that mean; 0 for one seed


Series = Mapping[str, Points]
# The values at which the axis of explained variance may have ticks.
SHARES = (-9, -4, -1, 0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
SHARES += (0.995, 0.998, 0.999)


def points(rows: Sequence[Mapping[str, Any]], name: str) -> Points:
    """Returns one score of all models with the same code, as the points of a line in a plot.

    Args:
      rows: the results of the code's models, each {"l0": result, name: result, ...}, where a result
        is {"mean": ..., "std": ..., "values": [per seed]}.
      name: the name of the score.
    """
    count = [max(len(row[name]["values"]), 1) for row in rows]
    made = [
        [float(row["l0"]["mean"]) for row in rows],
        [float(row[name]["mean"]) for row in rows],
        [float(row[name]["std"]) / n**0.5 for row, n in zip(rows, count, strict=True)],
    ]
    order = np.argsort(made[0], kind="stable")
    return Points(*(np.asarray(column)[order] for column in made))


def frontier_section(
    codes: Mapping[str, Sequence[Mapping[str, Any]]],
    peers: Mapping[str, Sequence[Mapping[str, Any]]],
    names: Sequence[str],
    text: str,
) -> Section:
    """Builds the section that plots scores against L0, with one panel for each score.

    Args:
      codes: name of a code -> its rows of result.json (see `points`), one for each value of L0.
      peers: name of a code -> rows of the same form, of another library's implementation of the
        code, which are drawn with hollow marks.
      names: the scores to plot, such as "explained_variance".
      text: the paragraph above the plots.
    """
    own, others = (
        {n: {c: points(rows, n) for c, rows in group.items()} for n in names}
        for group in (codes, peers)
    )
    stretch = " Unexplained variance is on a logarithmic axis." if STRETCHED in names else ""
    hollow = " Hollow marks are codes that another library trained on this data." if peers else ""
    picture = Picture(
        "frontier",
        "Each line is one code at several numbers of active latents (L0, on test examples). Bars "
        f"are standard errors over seeds. Up and to the left is better.{stretch}{hollow}"
        f"{_beyond(own)}",
        partial(frontier, panels=own, peers=others),
    )
    return Section("The frontier", text, [picture])


def _beyond(panels: Mapping[str, Series]) -> str:
    """Returns a sentence for the caption of a plot that lists the points outside the axes, or "".

    Args:
      panels: score -> code -> Points.
    """
    said = []
    for name, series in panels.items():
        low, high = limits(series, name)
        for label, each in series.items():
            out = [(x, y) for x, y in zip(each.l0, each.value, strict=True) if not low <= y <= high]
            said += [
                f"{spoken(label)} with {x:.3g} latents ({name_of(name)} {y:.2f})" for x, y in out
            ]
    return f" Outside the axes, marked at their edge: {'; '.join(said)}." if said else ""


def name_of(score: str) -> str:
    """Returns the title of the panel that plots a score, such as "explained variance"."""
    return NAMES.get(score, score.replace("_", " "))


def limits(series: Series, name: str = "") -> tuple[float, float]:
    """Returns the range of values that an axis shows, without outliers.

    As in a box plot, an outlier is a value that is below the first quartile or above the third
    quartile by more than 1.5 times the distance between these quartiles. Distances are measured on
    the axis of the score, see `stretched`.
    """
    values = np.concatenate([each.value for each in series.values()])
    places = stretched(values) if name == STRETCHED else values
    first, third = np.quantile(places, [0.25, 0.75])
    reach = 1.5 * (third - first)
    near = values[(places >= first - reach) & (places <= third + reach)]
    return float(near.min()), float(near.max())


STRETCHED = "explained_variance"  # the score whose axis is not linear


def stretched(share: Any) -> Any:
    """Returns where an axis shows an explained variance: at -log(1 - share).

    The unexplained variance is thus on a logarithmic axis: codes that explain 0.90 and 0.95 are as
    far apart as codes that explain 0 and 0.5.
    """
    return -np.log(np.maximum(1.0 - np.asarray(share, float), 1e-4))


def _stretch(axes: Any) -> None:
    """Gives the y axis the scale of `stretched`, with ticks that are not too close together."""
    low, high = axes.get_ylim()
    axes.set_yscale("function", functions=(stretched, lambda place: 1.0 - np.exp(-place)))
    axes.set_ylim(low, high)
    ends = stretched(low), stretched(high)
    ticks: list[float] = []
    for share in (share for share in SHARES if low <= share <= high):
        if not ticks or stretched(share) - stretched(ticks[-1]) > (ends[1] - ends[0]) / 12:
            ticks.append(share)
    axes.set_yticks(ticks, [f"{share:g}" for share in ticks])
    axes.set_yticks([], minor=True)


def frequency_section(frequencies: Mapping[str, np.ndarray]) -> Section:
    """Builds the section on how often latents are active, with a histogram for each code.

    Args:
      frequencies: code -> f[m], the firing frequency of each latent, in [0, 1].
    """
    pictures = []
    for label, frequency in frequencies.items():
        alive = frequency[frequency > 0]
        pictures.append(
            Picture(
                f"frequency-{label}",
                f"{spoken(label)}: the share of test examples for which a latent is active "
                f"(logarithmic). {frequency.size - alive.size:,} of {frequency.size:,} latents are "
                "never active.",
                partial(
                    plots.histogram,
                    values=alive,
                    name=f"latents of {spoken(label)}",
                    axis_name="share of examples for which a latent is active",
                    shares=True,
                ),
            )
        )
    text = (
        "A healthy dictionary has no cluster of latents at the left, which are almost never "
        "active, and none at 100 %, which are always active."
    )
    return Section("How often latents are used", text, pictures)


def frontier(
    panels: Mapping[str, Series], peers: Mapping[str, Series], theme: Theme = LIGHT
) -> Any:
    """Plots each score against L0 in a separate panel, with a line for each code.

    Args:
      panels: score -> code -> Points.
      peers: score -> code -> Points of another library's models, drawn as hollow marks.
      theme: the colours of the plot.

    Returns:
      A matplotlib Figure.
    """
    count = len(panels)
    labels = list(next(iter(panels.values())))
    columns = min(len(labels), 4 * count)  # four labels of the legend fit under each panel
    tall = 0.18 * -(-len(labels) // columns) + 0.15
    figure = canvas(WIDTH * count, 3.6 + tall, theme)
    width = figure.get_size_inches()[0] / count
    for i, (name, series) in enumerate(panels.items()):
        margins = (0.62 + i * width, 0.12 + (count - 1 - i) * width, 0.5, 0.38 + tall)
        axes = panel(figure, margins, theme)
        others = {f"peer {label}": each for label, each in peers.get(name, {}).items()}
        low, high = limits({**series, **others}, name)
        room = 0.06 * (high - low) or 0.05
        above = min(room, 0.3 * (1.0 - high)) if name == STRETCHED else room
        axes.set_ylim(low - room, high + above)
        if name == STRETCHED:
            _stretch(axes)
        _points(axes, series, labels, theme, "full")
        _points(axes, peers.get(name, {}), labels, theme, "none")
        _number_axis(axes)
        axes.grid(color=theme.rule, lw=0.6)
        axes.set_xlabel("active latents, L0", color=theme.muted, fontsize=SIZE - 1)
        width_inches, height = figure.get_size_inches()
        if i == 0:
            place = {"bbox_to_anchor": (0.4 / width_inches, 1.0)}
            place["bbox_transform"] = figure.transFigure
            legend(axes, theme, loc="upper left", ncols=columns, **place)
        figure.text(
            i / count,
            1 - (tall + 0.3) / height,
            name_of(name),
            color=theme.ink,
            fontsize=SIZE + 0.5,
            ha="left",
            va="bottom",
        )
    return figure


def _number_axis(axes: Any) -> None:
    """Makes the axis of L0 logarithmic if its largest value is more than 3 times the smallest."""
    from matplotlib import ticker

    low, high = axes.get_xlim()
    seen = np.concatenate([line.get_xdata() for line in axes.get_lines()])
    if seen.min() <= 0 or seen.max() <= 3 * seen.min():
        axes.set_xlim(low, high)
        return
    axes.set_xscale("log", base=2)
    axes.set_xlim(seen.min() / 1.15, seen.max() * 1.15)
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())


def _points(axes: Any, series: Series, labels: list[str], theme: Theme, fill: str) -> None:
    low, high = axes.get_ylim()
    for label, each in series.items():
        colour, mark = line_look(labels.index(label), theme)
        size = 5 if fill == "full" else 8
        axes.errorbar(
            each.l0,
            each.value,
            yerr=np.where(each.error > 0, each.error, np.nan),
            color=colour,
            lw=1.4 if fill == "full" else 0,
            elinewidth=1.0,
            marker=mark,
            fillstyle=fill,
            ms=size,
            label=spoken(label) if fill == "full" else None,
        )
        out = (each.value < low) | (each.value > high)
        edge = np.clip(each.value[out], low, high)
        axes.plot(
            each.l0[out], edge, color=colour, lw=0, marker=mark, fillstyle=fill, ms=size,
            clip_on=False,
        )  # fmt: skip
