"""Distributions of several figures over seeds, group beside group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aejax.report.drawing.scatter import row_major
from aejax.report.drawing.style import LIGHT, SIZE, Theme, canvas

COLUMNS = 5
TILE = (1.66, 1.85)  # inches of one panel, its title included
LEFT, LEGEND, ROW = 0.44, 0.1, 0.22  # inches left of a panel's axes, and of the legend's rows
LETTERS = 14  # of legend that an inch holds


def distributions(
    values: Mapping[str, Mapping[str, Sequence[float]]],
    names: Mapping[str, str],
    level: Mapping[str, float] | None = None,
    level_name: str = "",
    theme: Theme = LIGHT,
) -> Any:
    """A panel for each figure: every seed of each group as a point, the median as a line.

    Args:
      values: group -> figure -> f[S], at most ten groups.
      names: figure -> what stands above its panel, in order.
      level: figure -> a value to compare with, a dashed line.
      level_name: what the dashed lines are.
      theme: its colours.

    Returns:
      A Figure.
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
        # Side by side in the order of the seeds, so that equal values do not hide each other.
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
