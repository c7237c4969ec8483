"""Writes a grid of images as a PNG file into the subfolder `figures` of a run."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from aejax.files import subfolder, write_bytes
from aejax.report.drawing import style
from aejax.report.drawing.grids import image_grid

LEAST, MOST, WIDTH = 64, 256, 800  # CSS pixels: limits of one image's side, and width of a row


def drawable(images: np.ndarray) -> bool:
    """Returns whether [N, *event] are grey or colour images, [N, H, W, 1] or [N, H, W, 3]."""
    return images.ndim == 4 and images.shape[-1] in (1, 3)


def save(
    run_dir: pathlib.Path,
    name: str,
    rows: np.ndarray,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    gap_after: Sequence[int] = (),
) -> pathlib.Path:
    """Writes images as a grid to figures/NAME.png; with fewer columns the images are larger.

    Args:
      run_dir: the run's folder.
      name: the name of the file without .png.
      rows: f[R, C, H, W, 1 or 3] in [0, 1]; the place of an image of NaN stays empty.
      row_labels: R texts at the left of the rows, or none.
      column_labels: C texts above the columns, or none.
      gap_after: the indices of the columns that are followed by a wider gap.

    Returns:
      The file's path.
    """
    tile = int(np.clip(WIDTH // rows.shape[1], LEAST, MOST))
    drawn = style.png(image_grid(rows, row_labels, column_labels, gap_after, tile))
    path = subfolder(run_dir, "figures") / f"{name}.png"
    write_bytes(path, drawn)
    return path
