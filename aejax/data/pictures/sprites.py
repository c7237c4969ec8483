"""Sprites: binary pictures of one shape each, rendered here, whose five factors are known exactly.

Made after dSprites (Matthey et al. 2017), but not it. Each factor runs through an interval in which
no shape repeats itself, so a code with one latent for each factor exists; a square's or an
ellipse's full turn, as in dSprites, has none. And no factor has more than 20 values, which is what
20 bins of a histogram tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aejax.data.builder import Recipe, builder
from aejax.optional import needs

SHAPES = ("ellipse", "heart", "triangle")
FACTORS = ("shape", "scale", "orientation", "x", "y")


class Grid(NamedTuple):
    """How fine the factors are; every combination of their values is one picture."""

    side: int  # pixels of a picture's height and width
    scales: int  # from half the largest sprite to it
    orientations: int  # evenly from 0 to 90 degrees, both included
    positions: int  # of the sprite's centre in either direction
    step: int  # pixels from one position to the next

    @property
    def width(self) -> int:
        """Pixels of the largest sprite in either direction: what the positions leave free."""
        return self.side - self.step * (self.positions - 1)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many values each of FACTORS has."""
        return (len(SHAPES), self.scales, self.orientations, self.positions, self.positions)


# 30,720 and 115,200 pictures, no two of them alike.
GRIDS = {"sprites": Grid(32, 4, 10, 16, 1), "sprites64": Grid(64, 6, 16, 20, 2)}


def pictures(grid: Grid) -> Iterator[tuple[np.ndarray, tuple[int, ...]]]:
    """All pictures u8[side, side], 0 or 255, with the number of each factor's value, in order."""
    positions = [(y, x) for x in range(grid.positions) for y in range(grid.positions)]
    for shape, kind in enumerate(SHAPES):
        for scale in range(grid.scales):
            for orientation in range(grid.orientations):
                sprite = _sprite(grid, kind, scale, orientation)
                for y, x in positions:
                    yield _placed(grid, sprite, x, y), (shape, scale, orientation, x, y)


def recipe(name: str, manual_dir: Path | None, folder: Path) -> Recipe:
    """How the data set of one of GRIDS is made."""
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
    return Recipe(made, lambda: "rendered")


def _sprite(grid: Grid, kind: str, scale: int, orientation: int) -> np.ndarray:
    """A sprite alone, u8[width, width]: the pixels whose centre it covers, itself in the middle."""
    points = np.arange(grid.width) - (grid.width - 1) / 2
    size = grid.width / 2 * (1 + scale / (grid.scales - 1)) / 2
    angle = math.radians(90 * orientation / (grid.orientations - 1))
    # y grows upwards in the formulas and downwards in a picture.
    down, across = np.meshgrid(points / size, points / size, indexing="ij")
    x = math.cos(angle) * across - math.sin(angle) * down
    y = -math.sin(angle) * across - math.cos(angle) * down
    return (255 * _COVERED[kind](x, y)).astype(np.uint8)


def _placed(grid: Grid, sprite: np.ndarray, x: int, y: int) -> np.ndarray:
    """The sprite in a picture of its own."""
    picture = np.zeros((grid.side, grid.side), np.uint8)
    top, left = grid.step * y, grid.step * x
    picture[top : top + grid.width, left : left + grid.width] = sprite
    return picture


def _ellipse(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.square(x) + np.square(2 * y) <= 1


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x^2 + y^2 - 1)^3 <= x^2 y^3, brought into the unit circle."""
    x, y = 1.25 * x, 1.25 * y + 0.1
    return (np.square(x) + np.square(y) - 1) ** 3 <= np.square(x) * y**3


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Equilateral, in the unit circle."""
    return (y >= -0.5) & (y + math.sqrt(3) * np.abs(x) <= 1)


_COVERED = {"ellipse": _ellipse, "heart": _heart, "triangle": _triangle}
