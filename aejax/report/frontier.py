"""Comparison of sparse codes: what they explain against how many latents they use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from aejax.report.curve import History
from aejax.report.drawing import plots
from aejax.report.drawing.style import LIGHT, SIZE, WIDTH, Theme, canvas, legend, panel, title
from aejax.report.page import Picture, Section
from aejax.report.results import spoken

# Name of a score in result.json -> the title of its panel.
NAMES = {
    "explained_variance": "explained variance",
    "mcc": "mean correlation with the true features, MCC",
    "label_entropy": "label entropy of a unit's top examples, nats",
}


class Points(NamedTuple):
    """One score of one code at P numbers of active latents, in increasing order."""

    l0: np.ndarray  # f[P], the measured mean number of active latents
    value: np.ndarray  # f[P], the mean of the score over seeds
    error: np.ndarray  # f[P], the standard error of that mean; 0 for one seed


Series = Mapping[str, Points]


def points(rows: Sequence[Mapping[str, Any]], name: str) -> Points:
    """Reads the score `name` of one code from rows {"l0": ..., name: {"mean", "std", "values"}}."""
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
    """Builds the section that plots scores against active latents, one panel for each score.

    Args:
      codes: code -> its rows of result.json, one for each number of active latents.
      peers: code -> the rows of another library's implementation of it, drawn with hollow marks.
      names: the scores to plot, such as `explained_variance`.
      text: the paragraph above the plots.
    """
    own, others = (
        {n: {c: points(rows, n) for c, rows in group.items()} for n in names}
        for group in (codes, peers)
    )
    hollow = " Hollow marks are codes that another library trained on this data." if peers else ""
    picture = Picture(
        "frontier",
        "Each line is one code at several numbers of active latents (L0, on test examples). Bars "
        f"are standard errors over seeds. Up and to the left is better.{hollow}",
        partial(frontier, panels=own, peers=others),
    )
    return Section("The frontier", text, [picture])


def dead_section(histories: Mapping[str, History], members: str = "") -> Section | None:
    """Builds the section on dead latents over steps; None if no run logged the metric `dead`.

    Args:
      histories: code -> the learning curves of its run.
      members: the end of the caption, which says what a line is the mean of, as " over seeds".
    """
    lines = {}
    for label, history in histories.items():
        if "dead" in history:
            steps, values = history["dead"]
            lines[label] = (steps, values.reshape(len(steps), -1).mean(axis=1))
    if not lines:
        return None
    picture = Picture(
        "dead-latents",
        f"The share of latents that no example of the last 1,000 batches activated, mean{members}.",
        partial(lines_over_steps, series=lines, name="dead latents"),
    )
    return Section("Dead latents over time", "", [picture])


def density_section(densities: Mapping[str, np.ndarray]) -> Section:
    """Builds the section on how often latents are active, with a histogram for each code.

    Args:
      densities: code -> f[m], the firing frequency of each latent, in [0, 1].
    """
    pictures = []
    for label, density in densities.items():
        alive = density[density > 0]
        pictures.append(
            Picture(
                f"density-{label}",
                f"{label}: the share of test examples for which a latent is active (logarithmic). "
                f"{density.size - alive.size:,} of {density.size:,} latents are never active.",
                partial(
                    plots.histogram,
                    values=alive,
                    name=f"latents of {label}",
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
    """Plots a panel for each score, with a line through the points of each code.

    Args:
      panels: score -> code -> Points.
      peers: the same for codes of another library, drawn as hollow marks without lines.
      theme: the colours.

    Returns:
      A matplotlib Figure.
    """
    count = len(panels)
    labels = list(next(iter(panels.values())))
    columns = min(len(labels), 4 * count)  # columns of the legend: a panel has room for four labels
    tall = 0.24 * -(-len(labels) // columns) + 0.1
    figure = canvas(WIDTH * count, 3.6 + tall, theme)
    width = figure.get_size_inches()[0] / count
    for i, (name, series) in enumerate(panels.items()):
        margins = (0.62 + i * width, 0.12 + (count - 1 - i) * width, 0.5, 0.38 + tall)
        axes = panel(figure, margins, theme)
        _points(axes, series, labels, theme, "full")
        _points(axes, peers.get(name, {}), labels, theme, "none")
        axes.grid(color=theme.rule, lw=0.6)
        axes.set_xlabel("active latents, L0", color=theme.muted, fontsize=SIZE - 1)
        if i == 0:
            legend(axes, theme, loc="lower left", bbox_to_anchor=(-0.08, 1.0), ncols=columns)
        height = figure.get_size_inches()[1]
        figure.text(
            i / count,
            1 - 0.06 / height,
            NAMES.get(name, name.replace("_", " ")),
            color=theme.ink,
            fontsize=SIZE + 0.5,
            ha="left",
            va="top",
        )
    return figure


def _points(axes: Any, series: Series, labels: list[str], theme: Theme, fill: str) -> None:
    # The numbers of marks and colours have no common divisor: no two codes share both.
    marks = "osD^vPX<>*hpd"
    for label, each in series.items():
        place = labels.index(label)
        colour = theme.classes[place % len(theme.classes)]
        axes.errorbar(
            each.l0,
            each.value,
            yerr=np.where(each.error > 0, each.error, np.nan),
            color=colour,
            lw=1.4 if fill == "full" else 0,
            elinewidth=1.0,
            marker=marks[place % len(marks)],
            fillstyle=fill,
            ms=5 if fill == "full" else 8,
            label=spoken(label) if fill == "full" else None,
        )


def lines_over_steps(
    series: Mapping[str, tuple[np.ndarray, np.ndarray]], name: str, theme: Theme = LIGHT
) -> Any:
    """Plots shares in percent over steps, a line for each series.

    Args:
      series: label -> (steps i[n], shares f[n] in [0, 1]).
      name: the name of the plotted quantity, which becomes the title.
      theme: the colours.

    Returns:
      A matplotlib Figure.
    """
    tall = 0.24 * -(-len(series) // 5) + 0.1
    figure = canvas(WIDTH, 2.9 + tall, theme)
    axes = panel(figure, (0.62, 0.12, 0.5, 0.38 + tall), theme)
    for i, (label, (steps, values)) in enumerate(series.items()):
        colour = theme.classes[i % len(theme.classes)]
        axes.plot(steps, 100 * values, color=colour, lw=1.4, label=spoken(label))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=theme.rule, lw=0.6)
    axes.set_xlabel("step", color=theme.muted, fontsize=SIZE - 1)
    title(axes, name, theme)
    legend(axes, theme, loc="lower left", bbox_to_anchor=(-0.1, 1.0), ncols=min(len(series), 4))
    return figure
