"""Strip plots of scores: one panel for each score, with a point for each seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aejax.report.drawing.scatter import row_major
from aejax.report.drawing.style import LIGHT, SIZE, Theme, canvas

COLUMNS = 5  # the number of panels in a row
TILE = (1.66, 1.85)  # width and height of one panel with its title, in inches
LEFT = 0.44  # space at the left of a panel's axes, in inches
LEGEND, ROW = 0.1, 0.22  # margin of the legend and height of one of its rows, in inches
LETTERS = 14  # the number of characters of the legend that fit into an inch


def distributions(
    values: Mapping[str, Mapping[str, Sequence[float]]],
    names: Mapping[str, str],
    level: Mapping[str, float] | None = None,
    level_name: str = "",
    theme: Theme = LIGHT,
) -> Any:
    """Draws a panel for each score, with a point for each seed and a line for each median.

    Args:
      values: group -> score -> f[S], the values of its seeds; at most ten groups.
      names: score -> title of its panel; the panels are drawn in this order.
      level: score -> a reference value, which is drawn as a dashed line.
      level_name: the legend entry of the dashed lines.
      theme: the colours of the plot.

    Returns:
      A matplotlib Figure.
    """
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    entries = [*values, *([level_name] if level else [])]
    width = columns * TILE[0] + 0.1
    across = max(1, int(width * LETTERS / (5 + max(map(len, entries)))))
    top = LEGEND + ROW * -(-len(entries) // across)
    height = rows * TILE[1] + top
    figure = canvas(width, height, theme)
    for i, (name, title) in enumerate(names.items()):
        row, column = divmod(i, columns)
        left, bottom = column * TILE[0] + LEFT, height - top - (row + 1) * TILE[1] + 0.12
        size = ((TILE[0] - LEFT - 0.06) / width, (TILE[1] - 0.46) / height)
        axes = figure.add_axes((left / width, bottom / height, *size), facecolor="none")
        _panel(axes, [group.get(name, ()) for group in values.values()], theme)
        if level and name in level:
            axes.axhline(level[name], color=theme.muted, lw=0.9, ls=(0, (3, 3)), zorder=1)
        axes.set_title(title, color=theme.ink, fontsize=SIZE - 0.5, loc="left", pad=5, x=-0.1)
    _legend(figure, list(values), level_name if level else "", across, theme)
    return figure


def _panel(axes: Any, groups: list[Sequence[float]], theme: Theme) -> None:
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(theme.rule)
    axes.tick_params(color=theme.rule, labelcolor=theme.muted, labelsize=SIZE - 2, length=2)
    axes.grid(axis="y", color=theme.rule, lw=0.5)
    axes.set_axisbelow(True)
    axes.locator_params(axis="y", nbins=4)
    axes.set_xticks([])
    axes.set_xlim(-0.6, len(groups) - 0.4)
    for i, group in enumerate(groups):
        found = np.asarray(group, float)
        if not len(found):
            continue
        # Points are spread sideways in the order of the seeds, so that equal values are visible.
        offsets = np.linspace(-0.26, 0.26, len(found)) if len(found) > 1 else np.zeros(1)
        colour = theme.classes[i]
        axes.scatter(i + offsets, found, s=9, color=colour, alpha=0.8, lw=0, zorder=3)
        axes.plot([i - 0.36, i + 0.36], [np.median(found)] * 2, color=colour, lw=2, zorder=2)


def _legend(figure: Any, groups: list[str], level: str, across: int, theme: Theme) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=theme.classes[i], marker="o", ms=4, lw=2, label=group)
        for i, group in enumerate(groups)
    ]
    if level:
        handles.append(Line2D([], [], color=theme.muted, lw=0.9, ls=(0, (3, 3)), label=level))
    figure.legend(
        handles=row_major(handles, across),
        loc="upper left",
        ncols=across,
        frameon=False,
        fontsize=SIZE - 1,
        labelcolor=theme.muted,
        handlelength=1.4,
        handletextpad=0.4,
        columnspacing=1.1,
        borderaxespad=0.1,
    )
