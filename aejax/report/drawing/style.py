"""The style of all plots: two themes, one font size, and colours for colour-blind readers.

Matplotlib is imported inside functions only, since it is optional. Figures are made without pyplot,
so that drawing changes no global state and works in any thread.
"""

from __future__ import annotations

import io
from typing import Any, NamedTuple

from aejax.optional import needs

# Each CSS pixel of the page shows DENSITY device pixels, so that plots are sharp on high-density
# screens.
DPI = 192  # device pixels per inch
DENSITY = 2
WIDTH = 4.3  # width of a plot in inches, so that a wide page has room for two side by side
SIZE = 9.5  # font size in points, about that of the captions on the page


class Theme(NamedTuple):
    """The colours of the light or the dark mode of the page."""

    paper: str  # the background
    ink: str  # the colour of titles
    muted: str  # the colour of tick labels and remarks
    rule: str  # the colour of axes and grid
    series: tuple[str, ...]  # the colours of lines and bars, the most important first
    classes: tuple[str, ...]  # the colours of the points of up to ten classes


# Petroff (2021, arXiv:2107.02270): ten colours that colour-blind readers can distinguish.
CLASSES = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)
LIGHT = Theme(
    "#ffffff", "#1c2430", "#5b6675", "#dde2e8", ("#2f7fc9", "#e07b00", "#6b7683"), CLASSES
)
DARK = Theme("#12161c", "#e8ecf1", "#9aa6b4", "#2c343f", ("#5fa8ee", "#ffa63d", "#95a1b0"), CLASSES)


MARKS = "osD^vPX<>*hpd"  # the marks of the points of lines


def line_look(place: int, theme: Theme) -> tuple[str, str]:
    """Returns the colour and the mark of the line with the index `place` in the legend.

    There are 14 colours and 13 marks. Because these numbers have no common divisor, 14 * 13 lines
    all differ in their colour or their mark.
    """
    colours = (*theme.classes, theme.ink, "#2a9d5c", "#d45087", "#5b7f00")
    return colours[place % len(colours)], MARKS[place % len(MARKS)]


def canvas(width: float, height: float, theme: Theme) -> Any:
    """Returns an empty matplotlib Figure.

    Args:
      width: the width in inches.
      height: the height in inches.
      theme: the colours of the plot.

    Returns:
      A matplotlib Figure with the Agg backend.

    Raises:
      UserError: if matplotlib is not installed.
    """
    agg = needs("matplotlib.backends.backend_agg", "drawing a figure")
    make = needs("matplotlib.figure", "drawing a figure").Figure
    # Matplotlib truncates sizes to whole pixels. Without the addition of 1e-3, a rounding error
    # could remove a pixel.
    inches = [(round(side * DPI) + 1e-3) / DPI for side in (width, height)]
    figure = make(figsize=inches, dpi=DPI, facecolor=theme.paper)
    agg.FigureCanvasAgg(figure)
    return figure


def panel(figure: Any, margins: tuple[float, float, float, float], theme: Theme) -> Any:
    """Adds a plot that fills the figure up to its margins, with axes at the left and bottom.

    Args:
      figure: a matplotlib Figure.
      margins: the space left free at the left, right, bottom and top, in inches.
      theme: the colours of the plot.

    Returns:
      A matplotlib Axes.
    """
    width, height = figure.get_size_inches()
    left, right, bottom, top = margins
    axes = figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height),
        facecolor="none",
    )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(theme.rule)
    axes.tick_params(which="both", color=theme.rule, labelcolor=theme.muted, labelsize=SIZE - 1)
    axes.tick_params(which="minor", length=0)
    axes.set_axisbelow(True)
    return axes


def title(axes: Any, text: str, theme: Theme) -> None:
    """Writes a plot's title at the left edge of the figure, where the page begins its caption."""
    height = axes.figure.get_size_inches()[1]
    axes.figure.text(
        0.0, 1 - 0.06 / height, text, color=theme.ink, fontsize=SIZE + 0.5, ha="left", va="top"
    )


def legend(axes: Any, theme: Theme, **where: Any) -> None:
    """Adds a legend without a frame; `where` holds further arguments of matplotlib's legend."""
    look = {
        "frameon": False,
        "fontsize": SIZE - 1,
        "labelcolor": theme.muted,
        "handlelength": 1.2,
        "handletextpad": 0.5,
        "columnspacing": 1.2,
        "borderaxespad": 0.2,
    }
    axes.legend(**(look | where))


def png(figure: Any) -> bytes:
    """Returns the figure as a PNG file without metadata, so that equal figures give equal bytes."""
    # Names from files may hold "$", which matplotlib would read as mathematics. The labels of
    # logarithmic ticks are mathematics.
    texts = [*figure.texts]
    for axes in figure.axes:
        legend = axes.get_legend()
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        texts += [] if legend is None else legend.get_texts()
    for text in texts:
        text.set_parse_math(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
