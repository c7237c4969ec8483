"""A grid of images as a PNG file among a run's figures."""

from __future__ import annotations

import io
import pathlib

import numpy as np

from aejax.errors import UserError
from aejax.files import write_bytes, writing

SCALE = 4  # screen pixels a pixel


def drawable(images: np.ndarray) -> bool:
    """Whether [N, *event] holds grey or colour images, [N, H, W, 1] or [N, H, W, 3]."""
    return images.ndim == 4 and images.shape[-1] in (1, 3)


def save(run_dir: pathlib.Path, name: str, rows: np.ndarray) -> pathlib.Path:
    """Writes figures/NAME.png of rows f32[R, C, H, W, 1 or 3] in [0, 1]; its path."""
    try:
        from PIL import Image
    except ImportError as error:
        raise UserError("a picture needs pillow: `pip install pillow`") from error
    padded = np.pad(rows, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0)
    height, width = padded.shape[0] * padded.shape[2], padded.shape[1] * padded.shape[3]
    grid = padded.transpose(0, 2, 1, 3, 4).reshape(height, width, rows.shape[-1])
    grid = np.round(255 * np.clip(grid, 0, 1)).astype(np.uint8).repeat(SCALE, 0).repeat(SCALE, 1)
    image = Image.fromarray(grid[..., 0] if grid.shape[-1] == 1 else grid)
    buffer = io.BytesIO()
    image.save(buffer, "png")
    with writing(run_dir):
        (run_dir / "figures").mkdir(exist_ok=True)
    path = run_dir / "figures" / f"{name}.png"
    write_bytes(path, buffer.getvalue())
    return path
