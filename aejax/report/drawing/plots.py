"""The plots of a report: pure functions from arrays and a theme to a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from aejax.report.curve import Curve, binned
from aejax.report.drawing.distributions import distributions
from aejax.report.drawing.grids import image_grid
from aejax.report.drawing.scatter import scatter
from aejax.report.drawing.style import LIGHT, SIZE, WIDTH, Theme, canvas, legend, panel, title

__all__ = ["bars", "curves", "distributions", "histogram", "image_grid", "scatter"]

MARGINS = (0.62, 0.12, 0.5, 0.38)  # space left, right, below and above a plot, in inches


def curves(
    series: Mapping[str, Curve],
    name: str,
    log_steps: bool = True,
    theme: Theme = LIGHT,
) -> Any:
    """Plots values over steps: a line for the mean over seeds, a band from minimum to maximum.

    Args:
      series: label -> (steps i[n], values f[n] or f[n, S]), at most three of them.
      name: the name of the plotted quantity, which becomes the title.
      log_steps: whether the step axis is logarithmic, which makes the first steps easier to see.
      theme: the colours of the plot.

    Returns:
      A matplotlib Figure.
    """
    figure = canvas(WIDTH, 2.9, theme)
    axes = panel(figure, MARGINS, theme)
    drawn = [binned(curve, log_steps) for curve in series.values()]
    for line, label, colour in zip(drawn, series, theme.series, strict=False):
        if not np.array_equal(line.low, line.high):
            axes.fill_between(line.steps, line.low, line.high, color=colour, alpha=0.22, lw=0)
        mark = "o" if len(line.steps) == 1 else None
        axes.plot(line.steps, line.mean, color=colour, lw=1.5, label=label, marker=mark, ms=4)
    low = min(np.nanmin(line.low) for line in drawn)
    high = max(np.nanmax(line.high) for line in drawn)
    if low > 0 and high > 50 * low:
        axes.set_yscale("log")
        _short_tick_labels(axes.yaxis)
    elif low >= 0:
        # If no value is negative, the margin that matplotlib adds must not extend below zero.
        axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
    if log_steps:
        axes.set_xscale("log")
        _short_tick_labels(axes.xaxis)
    axes.grid(axis="y", color=theme.rule, lw=0.6)
    axes.set_xlabel("step", color=theme.muted, fontsize=SIZE - 1)
    title(axes, name, theme)
    if len(series) > 1:
        legend(axes, theme, loc="lower right", bbox_to_anchor=(1.01, 0.98), ncols=len(series))
    return figure


def _short_tick_labels(axis: Any) -> None:
    """Labels only the powers of ten on a logarithmic axis, in a short form such as 100 or 1k."""
    axis.set_major_formatter(lambda value, _: compact(value))
    axis.set_minor_formatter(lambda *_: "")


def compact(value: float) -> str:
    """Returns a number as a short text, such as 1, 10, 1k, 10k or 1M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def histogram(
    values: np.ndarray,
    name: str,
    axis_name: str,
    shares: bool = False,
    theme: Theme = LIGHT,
) -> Any:
    """Plots a histogram: how often each value occurs.

    Args:
      values: f[N].
      name: the name of what is counted, which becomes the title.
      axis_name: the label of the axis of values.
      shares: whether the values are fractions in (0, 1]; their axis is logarithmic, in percent.
      theme: the colours of the plot.

    Returns:
      A matplotlib Figure.
    """
    figure = canvas(WIDTH, 2.9, theme)
    axes = panel(figure, MARGINS, theme)
    low, high = (float(values.min()), float(values.max())) if len(values) else (1.0, 1.0)
    whole = not shares and bool(np.all(values == np.round(values))) and high - low < 60
    if shares:
        edges = np.geomspace(low * 0.95, 1.05, 36)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
        axes.xaxis.set_minor_formatter(lambda *_: "")
    elif whole:
        # The axis extends beyond the values, because a single bar would fill the whole plot.
        edges = np.arange(low - 3.5, high + 4)
        axes.set_xlim(edges[0], edges[-1])
        axes.xaxis.get_major_locator().set_params(integer=True)
    else:
        edges = np.linspace(low, high if high > low else low + 1, 36)
    axes.hist(values, edges, color=theme.series[0], rwidth=0.9 if whole else 0.96)
    axes.grid(axis="y", color=theme.rule, lw=0.6)
    axes.set_xlabel(axis_name, color=theme.muted, fontsize=SIZE - 1)
    title(axes, name, theme)
    return figure


def bars(
    values: np.ndarray,
    name: str,
    axis_name: str,
    marked: np.ndarray | None = None,
    theme: Theme = LIGHT,
) -> Any:
    """Plots one bar for each value, in the order given.

    Args:
      values: f[N].
      name: the name of the plotted quantity, which becomes the title.
      axis_name: the label of the horizontal axis.
      marked: bool[N], whether each bar is drawn in colour and not in grey; None: all are.
      theme: the colours of the plot.

    Returns:
      A matplotlib Figure.
    """
    figure = canvas(WIDTH, 2.9, theme)
    axes = panel(figure, MARGINS, theme)
    marked = np.ones(len(values), bool) if marked is None else marked
    colours = [theme.series[0] if m else theme.series[2] for m in marked]
    axes.bar(np.arange(1, len(values) + 1), values, color=colours, width=0.78)
    axes.set_xlim(0.5, len(values) + 0.5)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", color=theme.rule, lw=0.6)
    axes.set_xlabel(axis_name, color=theme.muted, fontsize=SIZE - 1)
    title(axes, name, theme)
    return figure
