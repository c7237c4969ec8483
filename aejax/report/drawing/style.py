"""How every figure looks: two themes, one type size, a palette that colour-blind readers can tell.

Only this file imports matplotlib, and only inside functions. Figures are made by its object
interface, so drawing leaves no state behind and works in any thread.
"""

from __future__ import annotations

import io
from typing import Any, NamedTuple

from aejax.optional import needs

# Device pixels per inch; the page shows two of them in each of its pixels, so screens of high
# density stay sharp.
DPI = 192
DENSITY = 2
WIDTH = 4.3  # inches of a plot; two stand side by side on a wide page
SIZE = 9.5  # points, about the size of the page's captions


class Theme(NamedTuple):
    """The colours of one mode of the page."""

    paper: str  # behind the figure
    ink: str  # titles
    muted: str  # tick labels and remarks
    rule: str  # axes and grid
    series: tuple[str, ...]  # lines and bars, most important first
    classes: tuple[str, ...]  # points of up to ten classes


# Petroff (2021, arXiv:2107.02270): ten colours chosen to be told apart by colour-blind readers.
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


def canvas(width: float, height: float, theme: Theme) -> Any:
    """An empty figure.

    Args:
      width: inches.
      height: inches.
      theme: its colours.

    Returns:
      A matplotlib Figure that draws with Agg.

    Raises:
      UserError: matplotlib is not installed.
    """
    agg = needs("matplotlib.backends.backend_agg", "drawing a figure")
    make = needs("matplotlib.figure", "drawing a figure").Figure
    # Matplotlib cuts fractions of pixels off: a hair more than a whole number stays whole.
    inches = [(round(side * DPI) + 1e-3) / DPI for side in (width, height)]
    figure = make(figsize=inches, dpi=DPI, facecolor=theme.paper)
    agg.FigureCanvasAgg(figure)
    return figure


def panel(figure: Any, margins: tuple[float, float, float, float], theme: Theme) -> Any:
    """One plot that fills the figure but for margins, with quiet axes.

    Args:
      figure: a matplotlib Figure.
      margins: inches left free at the left, right, bottom and top.
      theme: its colours.

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
    """Names the plot at the left edge of the figure, where the page's caption begins too."""
    height = axes.figure.get_size_inches()[1]
    axes.figure.text(
        0.0, 1 - 0.06 / height, text, color=theme.ink, fontsize=SIZE + 0.5, ha="left", va="top"
    )


def legend(axes: Any, theme: Theme, **where: Any) -> None:
    """A legend without a frame; `where` are matplotlib's own arguments."""
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
    """The figure as a PNG file, without the time or the version that drew it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
