"""Heat maps: tables of numbers drawn as colours."""

from __future__ import annotations

from typing import Any

import numpy as np

from aejax.report.drawing.style import LIGHT, SIZE, WIDTH, Theme, canvas, panel, title

MARGINS = (0.62, 0.95, 0.5, 0.38)  # inches left, right, below and above the map


def heat(values: np.ndarray, name: str, rows: str, columns: str, theme: Theme = LIGHT) -> Any:
    """Draws a heat map with a logarithmic colour scale; row 0 is at the bottom.

    Args:
      values: f[rows, columns], positive; cells with NaN are left blank.
      name: the name of the quantity, written above the map.
      rows: the label of the vertical axis.
      columns: the label of the horizontal axis.
      theme: the colours of the plot.

    Returns:
      A matplotlib Figure.
    """
    from matplotlib.colors import LogNorm

    figure = canvas(WIDTH, 2.9, theme)
    axes = panel(figure, MARGINS, theme)
    low, high = np.nanmin(values), np.nanmax(values)
    scale = LogNorm(max(low, 1e-12), max(high, low * (1 + 1e-6), 2e-12))
    drawn = axes.imshow(
        values, norm=scale, cmap="viridis", origin="lower", aspect="auto", interpolation="nearest"
    )
    axes.set_xlabel(columns, color=theme.muted, fontsize=SIZE - 1)
    axes.set_ylabel(rows, color=theme.muted, fontsize=SIZE - 1)
    title(axes, name, theme)
    width, height = figure.get_size_inches()
    place = (1 - 0.8 / width, MARGINS[2] / height, 0.14 / width, 1 - sum(MARGINS[2:]) / height)
    bar = figure.colorbar(drawn, cax=figure.add_axes(place))
    bar.ax.tick_params(labelsize=SIZE - 2, colors=theme.muted)
    bar.outline.set_edgecolor(theme.rule)
    return figure
