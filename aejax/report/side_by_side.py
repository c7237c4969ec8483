"""Learning curves of several models: one plot for each metric, with a line for each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from aejax.report.curve import Curve, History, binned
from aejax.report.drawing.plots import compact
from aejax.report.drawing.style import (
    LIGHT,
    SIZE,
    WIDTH,
    Theme,
    canvas,
    legend,
    line_look,
    panel,
    title,
)
from aejax.report.page import Picture, Section
from aejax.report.results import spoken
from aejax.report.writing import MEANINGS

# The metrics that models with different objectives have in common, in the order of their plots.
COMMON = ("error", "squared_error", "l0", "off_target", "dead", "grad_norm")


def side_by_side_section(
    histories: Mapping[str, History], members: str = "", names: Sequence[str] = COMMON
) -> Section | None:
    """Builds the report section with a plot for each metric, in which each sparse code has a line.

    The result is None if there is no metric to plot.

    Args:
      histories: name of a code -> the learning curves of its run.
      members: what the captions say after "mean", such as " over seeds".
      names: the metrics to plot; metrics that fewer than two codes logged are left out.
    """
    pictures = []
    for name in names:
        lines = {label: history[name] for label, history in histories.items() if name in history}
        flat = not any(np.any(values) for _, values in lines.values())
        if len(lines) < 2 or flat:
            continue
        what = spoken(name)
        meaning = f": {MEANINGS[name]}" if name in MEANINGS else ""
        pictures.append(
            Picture(
                f"codes-{name.replace('_', '-')}",
                f"{what[0].upper()}{what[1:]}{meaning}; on training batches, mean{members}.",
                partial(lines_over_steps, series=lines, name=what, labels=tuple(histories)),
            )
        )
    text = "Each line is one code; each point is the mean over neighbouring steps."
    return Section("Learning curves of all codes", text, pictures) if pictures else None


def lines_over_steps(
    series: Mapping[str, Curve], name: str, labels: Sequence[str] = (), theme: Theme = LIGHT
) -> Any:
    """Plots values over steps, with a line for each series.

    Args:
      series: label -> (steps i[n], values f[n] or f[n, S], of which the mean is drawn).
      name: the name of the plotted quantity, which becomes the title.
      labels: the labels of all plots on the page, so that a label has the same colour and mark in
        each plot; (): the labels of `series`.
      theme: the colours of the plot.

    Returns:
      A matplotlib Figure.
    """
    columns = min(len(series), 4)
    tall = 0.18 * -(-len(series) // columns) + 0.1
    figure = canvas(WIDTH, 2.9 + tall, theme)
    axes = panel(figure, (0.62, 0.12, 0.5, 0.38 + tall), theme)
    drawn = [binned(curve, bins=60) for curve in series.values()]
    places = list(labels or series)
    for label, line in zip(series, drawn, strict=True):
        i = places.index(label)
        colour, mark = line_look(i, theme)
        axes.plot(
            line.steps, line.mean, color=colour, lw=1.3, label=spoken(label), marker=mark, ms=4,
            markevery=(2 * i % 15, 15),
        )  # fmt: skip
    low = min(np.nanmin(line.mean) for line in drawn)
    high = max(np.nanmax(line.mean) for line in drawn)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: compact(value))
    axes.xaxis.set_minor_formatter(lambda *_: "")
    if low > 0 and high > 10 * low:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: compact(value))
        axes.yaxis.set_minor_formatter(lambda *_: "")
    axes.grid(axis="y", color=theme.rule, lw=0.6)
    axes.set_xlabel("step", color=theme.muted, fontsize=SIZE - 1)
    title(axes, name, theme)
    legend(axes, theme, loc="lower left", bbox_to_anchor=(-0.1, 1.0), ncols=columns)
    return figure
