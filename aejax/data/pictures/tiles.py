"""Cuts pictures into overlapping tiles of one size, and puts maps of tiles together again.

parts = cut(pictures, (64, 64), overlap=16)       # every pixel is in at least one tile
maps = merged(maps_of_tiles, parts)               # the mean, where tiles overlap
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from aejax.errors import UserError


class Tiles(NamedTuple):
    """The M tiles of some pictures, in the order of the pictures; its tiles cover a picture."""

    values: np.ndarray  # [M, height, width, ...]
    picture: np.ndarray  # i32[M], the index of the picture that a tile is part of
    top: np.ndarray  # i32[M], the first row of the tile in the picture
    left: np.ndarray  # i32[M], the first column of the tile in the picture


def cut(pictures: Sequence[np.ndarray], size: tuple[int, int], overlap: int = 0) -> Tiles:
    """Cuts pictures into tiles, spread evenly so that no picture has to be padded.

    Args:
      pictures: N arrays [H, W, ...], whose sizes may differ.
      size: the height and width of a tile.
      overlap: the least number of pixels that neighbouring tiles have in common.

    Raises:
      UserError: if a tile is larger than a picture, or the overlap does not fit into a tile.
    """
    if not 0 <= overlap < min(size):
        raise UserError(
            f"the overlap of tiles is {overlap} pixels: give 0 to {min(size) - 1}, less than the "
            "side of a tile"
        )
    values, places = [], []
    for i, picture in enumerate(pictures):
        height, width = picture.shape[:2]
        if height < size[0] or width < size[1]:
            raise UserError(
                f"tiles of {size[0]}x{size[1]} pixels do not fit into a picture of "
                f"{height}x{width}: give a smaller tile"
            )
        for top in _starts(height, size[0], overlap):
            for left in _starts(width, size[1], overlap):
                values.append(picture[top : top + size[0], left : left + size[1]])
                places.append((i, top, left))
    picture, top, left = np.asarray(places, np.int32).reshape(-1, 3).T
    return Tiles(np.stack(values), picture, top, left)


def merged(values: np.ndarray, tiles: Tiles) -> list[np.ndarray]:
    """Joins arrays of tiles, f[M, h, w], to one array of each whole picture, f32[H, W].

    Where tiles overlap, the result is their mean.
    """
    found = []
    height, width = values.shape[1:3]
    for i in np.unique(tiles.picture):
        rows = np.flatnonzero(tiles.picture == i)
        shape = (int(tiles.top[rows].max()) + height, int(tiles.left[rows].max()) + width)
        total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        for row in rows:
            top, left = tiles.top[row], tiles.left[row]
            total[top : top + height, left : left + width] += values[row]
            count[top : top + height, left : left + width] += 1
        found.append(total / count)
    return found


def _starts(length: int, side: int, overlap: int) -> np.ndarray:
    count = 1 + math.ceil((length - side) / (side - overlap))
    return np.linspace(0, length - side, count).round().astype(int)
