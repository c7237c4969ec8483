"""The section that compares features by the accuracy of probes with few labels or units."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

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

Row = Mapping[str, Mapping[str, Any]]  # PREFIX + number -> {"mean", "std", "values"}


def budgets_section(
    rows: Mapping[str, Row], prefix: str, axis: str, heading: str, what: str, text: str
) -> Section:
    """Builds a section with a plot in which each kind of features has a line.

    Args:
      rows: name of the features -> results, whose names are the prefix and a number.
      prefix: the start of those names.
      axis: what the number counts.
      heading: the title of the section.
      what: the name of the plotted quantity.
      text: the text of the section.
    """
    draw = functools.partial(_lines, rows, prefix, axis, what)
    name = heading.lower().replace(" ", "-")
    return Section(heading, text, [Picture(name, f"{what} against {axis}.", draw)])


def _lines(rows: Mapping[str, Row], prefix: str, axis: str, what: str, theme: Theme = LIGHT) -> Any:
    columns = 4
    tall = 0.18 * -(-len(rows) // columns) + 0.1
    figure = canvas(1.5 * WIDTH, 3.6 + tall, theme)
    axes = panel(figure, (0.62, 0.12, 0.5, 0.38 + tall), theme)
    ticks: list[int] = []
    for i, (name, row) in enumerate(rows.items()):
        cells = {int(k.removeprefix(prefix)): c for k, c in row.items() if k.startswith(prefix)}
        ticks = sorted(cells)
        mean = np.array([float(cells[n]["mean"]) for n in ticks])
        std = np.array([float(cells[n]["std"]) for n in ticks])
        colour, mark = line_look(i, theme)
        axes.fill_between(ticks, mean - std, mean + std, color=colour, alpha=0.15, lw=0)
        axes.plot(ticks, mean, color=colour, lw=1.4, marker=mark, ms=4.5, label=name)
    axes.set_xscale("log")
    axes.set_xticks(ticks, [compact(n) for n in ticks])
    axes.minorticks_off()
    axes.grid(axis="y", color=theme.rule, lw=0.6)
    axes.set_xlabel(axis, color=theme.muted, fontsize=SIZE - 1)
    title(axes, what, theme)
    legend(axes, theme, loc="lower left", bbox_to_anchor=(-0.08, 1.0), ncols=columns)
    return figure
