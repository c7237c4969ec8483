"""A grid of images as a PNG file among a run's figures."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from aejax.files import write_bytes, writing
from aejax.report.drawing import style
from aejax.report.drawing.grids import image_grid

LEAST, MOST, WIDTH = 64, 256, 800  # pixels of one image's side, and of all of a row


def drawable(images: np.ndarray) -> bool:
    """Whether [N, *event] holds grey or colour images, [N, H, W, 1] or [N, H, W, 3]."""
    return images.ndim == 4 and images.shape[-1] in (1, 3)


def save(
    run_dir: pathlib.Path,
    name: str,
    rows: np.ndarray,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    gap_after: Sequence[int] = (),
) -> pathlib.Path:
    """Writes figures/NAME.png, few images larger than many.

    Args:
      run_dir: the run's folder.
      name: of the file.
      rows: f[R, C, H, W, 1 or 3] in [0, 1]; NaN leaves paper.
      row_labels, column_labels, gap_after: as `image_grid` has them.

    Returns:
      The file's path.
    """
    tile = int(np.clip(WIDTH // rows.shape[1], LEAST, MOST))
    drawn = style.png(image_grid(rows, row_labels, column_labels, gap_after, tile))
    with writing(run_dir):
        (run_dir / "figures").mkdir(exist_ok=True)
    path = run_dir / "figures" / f"{name}.png"
    write_bytes(path, drawn)
    return path
