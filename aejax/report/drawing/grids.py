"""Grids of small images, in which each image pixel covers a whole number of screen pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from aejax.report.drawing.style import DENSITY, DPI, LIGHT, SIZE, Theme, canvas

ROOM = 860 * DENSITY  # width of the report page's column, in device pixels
GAP = 6  # space between images, in device pixels
CHARACTER, LINE = 14, 34  # width of a label's character and height of its line, in device pixels
WIDE = 24  # extra space after a column in `gap_after`, in device pixels


class Layout(NamedTuple):
    """The positions and sizes of the images of a grid, in device pixels."""

    x: np.ndarray  # i[C], the left edge of each column
    y: np.ndarray  # i[R], the upper edge of each row
    enlarge: int  # each image pixel is drawn as a square of enlarge x enlarge device pixels
    reduce: int  # squares of reduce x reduce image pixels are first averaged; 1 if images fit
    width: int  # the width of the grid
    height: int  # the height of the grid


def image_grid(
    images: np.ndarray,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    gap_after: Sequence[int] = (),
    tile: int = 64,
    theme: Theme = LIGHT,
) -> Any:
    """Draws small images in rows and columns.

    Args:
      images: grey f[R, C, H, W, 1] or colour f[R, C, H, W, 3], in [0, 1]; an image of NaN only is
        left blank.
      row_labels: R texts at the left of the rows, or none.
      column_labels: C texts above the columns, or none.
      gap_after: the indices of the columns that are followed by a wider gap.
      tile: the approximate width of an image in CSS pixels; it is reduced if a row does not fit.
      theme: the colours of the plot.

    Returns:
      A matplotlib Figure.
    """
    longest = max((len(line) for text in row_labels for line in text.split("\n")), default=0)
    left = CHARACTER * longest + 20 if longest else 0
    top = 36 if column_labels else 0
    lines = max((text.count("\n") + 1 for text in row_labels), default=0)
    place = layout(images.shape, ROOM - left, gap_after, tile, lines * LINE)
    width, height = left + place.width, top + place.height
    figure = canvas(width / DPI, height / DPI, theme)
    axes = figure.add_axes((left / width, 0, place.width / width, place.height / height))
    axes.set_axis_off()
    axes.imshow(mosaic(images, place), interpolation="nearest", aspect="auto")

    def write(x: float, y: float, text: str, ha: str, va: str) -> None:
        look = {"color": theme.muted, "fontsize": SIZE - 1, "linespacing": 1.35}
        figure.text(x / width, y / height, text, ha=ha, va=va, **look)

    tall, broad = (size * place.enlarge // place.reduce for size in images.shape[2:4])
    for y, text in zip(place.y, row_labels, strict=False):
        write(left - 16, place.height - y - tall / 2, text, "right", "center")
    for x, text in zip(place.x, column_labels, strict=False):
        write(left + x + broad / 2, place.height + 10, text, "center", "bottom")
    return figure


def layout(
    shape: Sequence[int], room: int, gap_after: Sequence[int], tile: int, row: int = 0
) -> Layout:
    """Computes a layout in which images are about `tile` wide and rows at most `room` wide.

    Args:
      shape: the shape of the images, [R, C, H, W, ...].
      room: the maximum width of the grid, in device pixels.
      gap_after: the indices of the columns that are followed by a wider gap.
      tile: the approximate width of an image in CSS pixels.
      row: the minimum height of a row in device pixels, so that its label fits.
    """
    rows, columns, height, width = shape[:4]
    fits = ((room - WIDE * len(gap_after)) / columns - GAP) / width
    scale = min(DENSITY * tile / math.sqrt(height * width), fits)
    enlarge, reduce = 1, 1
    if scale >= 1:
        enlarge = round(scale) if round(scale) <= fits else int(scale)
    else:
        reduce = min(math.ceil(1 / max(scale, 1e-3)), height, width)
    tall, broad = (size * enlarge // reduce for size in (height, width))
    wider = [WIDE * sum(g < column for g in gap_after) for column in range(columns)]
    x = np.arange(columns) * (broad + GAP) + np.array(wider)
    pitch = max(tall + GAP, row)
    y = np.arange(rows) * pitch + max(0, (row - tall - GAP) // 2)
    return Layout(x, y, enlarge, reduce, int(x[-1]) + broad, rows * pitch - GAP)


def mosaic(images: np.ndarray, place: Layout) -> np.ndarray:
    """Puts all images into one RGBA array f[height, width, 4], transparent between them."""
    whole = np.zeros((place.height, place.width, 4), np.float32)
    for row, y in enumerate(place.y):
        for column, x in enumerate(place.x):
            image = images[row, column]
            if np.isnan(image).all():
                continue
            if place.reduce > 1:
                image = _reduced(image, place.reduce)
            pixels = image.repeat(place.enlarge, axis=0).repeat(place.enlarge, axis=1)
            spot = whole[y : y + pixels.shape[0], x : x + pixels.shape[1]]
            spot[..., :3] = np.clip(pixels, 0, 1)
            spot[..., 3] = 1
    return whole


def _reduced(image: np.ndarray, by: int) -> np.ndarray:
    """Reduces an image by averaging squares of `by` x `by` pixels; a remainder is cut off."""
    height, width = (size // by for size in image.shape[:2])
    cut = image[: height * by, : width * by]
    return cut.reshape(height, by, width, by, -1).mean(axis=(1, 3))
