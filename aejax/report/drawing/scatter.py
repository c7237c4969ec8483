"""Scatter plots of points in the plane, coloured by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aejax.report.drawing.style import DPI, LIGHT, SIZE, WIDTH, Theme, canvas, legend, panel

NAMED = 24  # the largest number of names that are written; more would hide the points


def scatter(
    points: np.ndarray,
    labels: np.ndarray | None = None,
    classes: Sequence[str] = (),
    axis_names: tuple[str, str] = ("", ""),
    equal: bool = True,
    theme: Theme = LIGHT,
) -> Any:
    """Plots points, coloured by class, with the name of each class at the median of its points.

    Args:
      points: f[N, 2].
      labels: i[N], the class of each point, or None.
      classes: the names of the classes; for a class without a name, its index is written.
      axis_names: the labels of the two axes.
      equal: whether both axes have the same scale, so that distances can be compared.
      theme: the colours of the plot.

    Returns:
      A matplotlib Figure.
    """
    present: np.ndarray = np.unique(labels) if labels is not None else np.zeros(0, int)
    names = [str(classes[c] if c < len(classes) else c) for c in present.tolist()][:NAMED]
    columns = min(len(names), max(1, int(46 / (3.6 + max(map(len, names), default=0)))))
    tall = 0.21 * -(-len(names) // max(columns, 1))
    figure = canvas(WIDTH, 4.0 + tall, theme)
    axes = panel(figure, (0.62, 0.12, 0.5, 0.14 + tall), theme)
    size = float(np.clip(6000 / max(len(points), 1), 3, 18))
    if labels is None:
        axes.scatter(*points.T, s=size, color=theme.series[0], alpha=0.6, lw=0)
    else:
        colours = class_colours(len(present), theme)
        # Points are drawn in random order, so that the last class does not hide the others.
        order = np.random.default_rng(0).permutation(len(points))
        index = np.searchsorted(present, labels)
        shades = [colours[i] for i in index[order]]
        axes.scatter(*points[order].T, s=size, c=shades, alpha=0.75, lw=0)
        written = [
            _name(axes, np.median(points[index == i], axis=0), name, colours[i], theme)
            for i, name in enumerate(names)
        ]
        shown = [
            axes.scatter([], [], s=26, color=colours[i], label=name, lw=0)
            for i, name in enumerate(names)
        ]
        legend(
            axes,
            theme,
            handles=row_major(shown, columns),
            loc="lower left",
            bbox_to_anchor=(-0.03, 1.0),
            ncols=columns,
            handletextpad=0.1,
            columnspacing=0.9,
        )
    if equal:
        axes.set_aspect("equal", adjustable="datalim")
    if labels is not None:
        _separate(axes, written)
    axes.set_xlabel(axis_names[0], color=theme.muted, fontsize=SIZE - 1)
    axes.set_ylabel(axis_names[1], color=theme.muted, fontsize=SIZE - 1)
    return figure


def class_colours(count: int, theme: Theme = LIGHT) -> list[Any]:
    """Returns a colour for each of `count` classes, from a colour map if they are more than ten."""
    if count <= len(theme.classes):
        return list(theme.classes[:count])
    from matplotlib import colormaps

    return [tuple(row) for row in colormaps["viridis"](np.linspace(0.05, 0.95, count))]


def _name(axes: Any, place: np.ndarray, name: str, colour: Any, theme: Theme) -> Any:
    """Writes the name of a class in a box at a point, and returns the matplotlib Text."""
    box = {
        "facecolor": theme.paper,
        "edgecolor": colour,
        "alpha": 0.85,
        "boxstyle": "round,pad=0.22",
        "linewidth": 0.8,
    }
    centred = {"ha": "center", "va": "center", "fontsize": SIZE - 1.5}
    return axes.text(*place, name, color=theme.ink, bbox=box, **centred)


def _separate(axes: Any, written: Sequence[Any]) -> None:
    """Moves the given texts of a plot apart where they overlap."""
    axes.apply_aspect()
    renderer = axes.figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in written]
    room = 0.9 * SIZE * DPI / 72  # the width of the frame around a name, in pixels
    sizes = np.array([(box.width + room, box.height + room) for box in boxes]).reshape(-1, 2)
    centres = np.array([(box.x0 + box.x1, box.y0 + box.y1) for box in boxes]).reshape(-1, 2) / 2
    places = axes.transData.inverted().transform(apart(centres, sizes))
    for text, place in zip(written, places, strict=True):
        text.set_position(tuple(place))


def apart(centres: np.ndarray, sizes: np.ndarray, rounds: int = 200) -> np.ndarray:
    """Moves overlapping boxes apart, pair by pair, along the axis on which they overlap less.

    Args:
      centres: f[n, 2], the centres of the boxes.
      sizes: f[n, 2], their widths and heights.
      rounds: the maximum number of passes over all pairs, after which boxes may still overlap.

    Returns:
      f[n, 2], the new centres; boxes that do not overlap others keep their centres.
    """
    moved = np.array(centres, float)
    for _ in range(rounds):
        still = True
        for i in range(len(moved)):
            for j in range(i):
                way = moved[i] - moved[j]
                over = (sizes[i] + sizes[j]) / 2 - np.abs(way)
                if over.min() > 1e-6:
                    axis = int(over.argmin())
                    push = (over[axis] / 2 + 1e-3) * (1 if way[axis] >= 0 else -1)
                    moved[i, axis] += push
                    moved[j, axis] -= push
                    still = False
        if still:
            break
    return moved


def row_major(items: Sequence[Any], columns: int) -> list[Any]:
    """Reorders legend entries so that they appear row by row.

    Matplotlib fills the columns of a legend one after the other.
    """
    return [item for column in range(columns) for item in items[column::columns]]
