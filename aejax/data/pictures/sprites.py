"""Sprites: rendered binary pictures of one shape each, whose five factors are known exactly.

The data set resembles dSprites (Matthey et al. 2017) but differs in two ways. First, orientations
range from 0 to 90 degrees, and no shape looks the same at two of them, so that a code with one
latent per factor is possible. In dSprites a square or an ellipse looks the same at several
orientations. Second, no factor has more than 20 values, so that a histogram of 20 bins can
distinguish them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aejax.data.builder import NamedDataset, builder
from aejax.optional import needs

SHAPES = ("ellipse", "heart", "triangle")
FACTORS = ("shape", "scale", "orientation", "x", "y")


class Grid(NamedTuple):
    """The number of values of each factor; every combination of values is one picture."""

    side: int  # the height and width of a picture, in pixels
    scales: int  # the number of sizes, evenly spaced from half the largest sprite to the largest
    orientations: int  # the number of angles, evenly spaced from 0 to 90 degrees, both included
    positions: int  # the number of positions along x, and along y
    step: int  # the distance between neighbouring positions, in pixels

    @property
    def width(self) -> int:
        """Returns the height and width in pixels of the largest sprite that fits everywhere."""
        return self.side - self.step * (self.positions - 1)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Returns the number of values of each of FACTORS."""
        return (len(SHAPES), self.scales, self.orientations, self.positions, self.positions)


# These give 30,720 and 115,200 pictures, no two of which are equal.
GRIDS = {"sprites": Grid(32, 4, 10, 16, 1), "sprites64": Grid(64, 6, 16, 20, 2)}


def pictures(grid: Grid) -> Iterator[tuple[np.ndarray, tuple[int, ...]]]:
    """Yields all pictures u8[side, side], 0 or 255, each with the index of each factor's value."""
    positions = [(y, x) for x in range(grid.positions) for y in range(grid.positions)]
    for shape, kind in enumerate(SHAPES):
        for scale in range(grid.scales):
            for orientation in range(grid.orientations):
                sprite = _sprite(grid, kind, scale, orientation)
                for y, x in positions:
                    yield _placed(grid, sprite, x, y), (shape, scale, orientation, x, y)


def named_dataset(name: str, manual_dir: Path | None, folder: Path) -> NamedDataset:
    """Returns the data set of sprites of this name, one of GRIDS.

    The arguments manual_dir and folder are not used, because the pictures are rendered.
    """
    features = needs("tensorflow_datasets", f"preparing {name}").features
    image, grid = needs("PIL.Image", f"preparing {name}"), GRIDS[name]
    columns = [f"label_{factor}" for factor in FACTORS]
    counts = zip(columns, grid.sizes, strict=True)
    labels = {column: features.ClassLabel(num_classes=n) for column, n in counts}
    labels["label_shape"] = features.ClassLabel(names=SHAPES)
    examples = (
        {"image": image.fromarray(pixels), **dict(zip(columns, values, strict=True))}
        for pixels, values in pictures(grid)
    )
    about = "Sprites rendered by aejax: every combination of five factors."
    picture = features.Image(shape=(grid.side, grid.side, 1))
    made = builder(name, about, {"image": picture, **labels}, {"train": examples})
    return NamedDataset(made, lambda: "rendered")


def _sprite(grid: Grid, kind: str, scale: int, orientation: int) -> np.ndarray:
    """Renders a sprite as u8[width, width]: 255 where it covers a pixel's centre, 0 elsewhere."""
    points = np.arange(grid.width) - (grid.width - 1) / 2
    size = grid.width / 2 * (1 + scale / (grid.scales - 1)) / 2
    angle = math.radians(90 * orientation / (grid.orientations - 1))
    # y grows upwards in the formulas of the shapes, but downwards in a picture.
    down, across = np.meshgrid(points / size, points / size, indexing="ij")
    x = math.cos(angle) * across - math.sin(angle) * down
    y = -math.sin(angle) * across - math.cos(angle) * down
    return (255 * _COVERED[kind](x, y)).astype(np.uint8)


def _placed(grid: Grid, sprite: np.ndarray, x: int, y: int) -> np.ndarray:
    """Returns a picture u8[side, side] with the sprite at position (x, y)."""
    picture = np.zeros((grid.side, grid.side), np.uint8)
    top, left = grid.step * y, grid.step * x
    picture[top : top + grid.width, left : left + grid.width] = sprite
    return picture


def _ellipse(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.square(x) + np.square(2 * y) <= 1


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns whether each point (x, y) lies in a heart that is scaled to fit into the unit circle.

    The heart is the set (x^2 + y^2 - 1)^3 <= x^2 y^3.
    """
    x, y = 1.25 * x, 1.25 * y + 0.1
    return (np.square(x) + np.square(y) - 1) ** 3 <= np.square(x) * y**3


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns whether each point (x, y) lies in an equilateral triangle in the unit circle."""
    return (y >= -0.5) & (y + math.sqrt(3) * np.abs(x) <= 1)


_COVERED = {"ellipse": _ellipse, "heart": _heart, "triangle": _triangle}
