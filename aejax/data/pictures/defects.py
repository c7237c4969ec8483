"""Paints defects with known masks into pictures of a texture.

    painted, mask = paint("scratch", picture, np.random.default_rng(0))

A defect is blended at its soft edge with the picture. Its contrast is a multiple of the standard
deviation of the picture's own brightness, so that it is as visible on a calm texture as on a busy
one. The multiples, and the strength for each texture, were fixed with the reconstruction by
principal components as the only detector, whose AUROC was to lie between 0.6 and 0.9.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from aejax.errors import UserError

# (picture, random, strength) -> the pixels of a defect f[H, W, C], and its cover f[H, W]: which
# share of each pixel the defect covers.
Painter = Callable[[np.ndarray, np.random.Generator, float], tuple[np.ndarray, np.ndarray]]
SOFT = 0.5  # a pixel belongs to the mask if the defect covers at least this share of it


def paint(
    kind: str, picture: np.ndarray, random: np.random.Generator, strength: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Paints one defect.

    Args:
      kind: one of `DEFECTS`.
      picture: u8[H, W, C]; it is not changed.
      random: the source of the defect's place and form, and of whether it is darker or brighter.
      strength: a factor of the defect's contrast; `missing` and `blur` do not use it.

    Returns:
      The painted picture u8[H, W, C], and the mask bool[H, W].

    Raises:
      UserError: if there is no such kind.
    """
    if kind not in DEFECTS:
        raise UserError(f"there is no defect {kind!r}: choose one of {', '.join(DEFECTS)}")
    values = picture.astype(np.float64)
    other, cover = DEFECTS[kind](values, random, strength)
    mixed = values + cover[..., None] * (other - values)
    return np.clip(np.round(mixed), 0, 255).astype(np.uint8), cover >= SOFT


def scratch(
    picture: np.ndarray, random: np.random.Generator, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixels of a long, bent, darker or brighter line, and how far it covers each."""
    side = min(picture.shape[:2])
    length, angle = random.uniform(0.35, 0.6) * side, random.uniform(0, np.pi)
    bend = random.uniform(-0.3, 0.3)
    along = np.linspace(-0.5, 0.5, 4 * side)
    turn = angle + bend * along
    path = np.cumsum(np.stack([np.sin(turn), np.cos(turn)], 1), axis=0) * length / len(along)
    cover = _stroke(picture.shape[:2], path, 0.9, random)
    return picture + _sign(random) * 4.0 * strength * _contrast(picture), cover


def crack(
    picture: np.ndarray, random: np.random.Generator, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixels of a thin, dark, jagged line, and how far it covers each."""
    side = min(picture.shape[:2])
    turn = random.uniform(0, 2 * np.pi) + np.repeat(random.normal(0, 0.7, side // 4), 2)
    steps = random.uniform(0.6, 1.2) * np.stack([np.sin(turn), np.cos(turn)], 1)
    corners = np.cumsum(steps, axis=0)
    places = np.linspace(0, len(corners) - 1, 4 * side)
    path = np.stack([np.interp(places, np.arange(len(corners)), c) for c in corners.T], 1)
    cover = _stroke(picture.shape[:2], path, 0.6, random)
    return picture - 5.0 * strength * _contrast(picture), cover


def blob(
    picture: np.ndarray, random: np.random.Generator, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixels of a translucent stain, and how far it covers each."""
    cover = _patch(picture.shape[:2], random, 0.10, 1.6)
    return picture + _sign(random) * 3.2 * strength * _contrast(picture), cover


def missing(
    picture: np.ndarray, random: np.random.Generator, _: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixels of a patch of the mean colour and noise, and how far it covers each."""
    cover = _patch(picture.shape[:2], random, 0.13, 0.8)
    weight = cover[..., None] / cover.sum()
    flat = np.sum(picture * weight, axis=(0, 1))
    return flat + random.normal(0, 0.15 * _contrast(picture), picture.shape), cover


def colour(
    picture: np.ndarray, random: np.random.Generator, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixels of a patch of another colour or brightness, and how far it covers each."""
    cover = _patch(picture.shape[:2], random, 0.16, 1.0)
    channels = picture.shape[-1]
    direction = np.ones(1) if channels == 1 else random.permutation([1.0, -0.5, -0.5])
    return picture * (1 + _sign(random) * 0.6 * strength * direction), cover


def blur(
    picture: np.ndarray, random: np.random.Generator, _: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixels of a patch that is out of focus, and how far it covers each."""
    from scipy import ndimage

    cover = _patch(picture.shape[:2], random, 0.20, 1.0)
    return ndimage.gaussian_filter(picture, (1.6, 1.6, 0), mode="nearest"), cover


DEFECTS: dict[str, Painter] = {
    "scratch": scratch,
    "crack": crack,
    "blob": blob,
    "missing": missing,
    "colour": colour,
    "blur": blur,
}


def _contrast(picture: np.ndarray) -> float:
    return max(float(picture.mean(axis=-1).std()), 8.0)


def _sign(random: np.random.Generator) -> float:
    return 1.0 if random.random() < 0.5 else -1.0


def _stroke(
    shape: tuple[int, int], path: np.ndarray, radius: float, random: np.random.Generator
) -> np.ndarray:
    """Returns how much a line of points f[n, 2] covers each pixel, f[H, W], at a random place."""
    from scipy import ndimage

    centre = path - (path.min(axis=0) + path.max(axis=0)) / 2
    reach = np.abs(centre).max(axis=0)
    room = np.maximum(np.array(shape) / 2 - 2 - reach, 0)
    points = centre + np.array(shape) / 2 + random.uniform(-1, 1, 2) * room
    rows, columns = np.clip(points.round().astype(int), 0, np.array(shape) - 1).T
    line = np.ones(shape, bool)
    line[rows, columns] = False
    distance = np.asarray(ndimage.distance_transform_edt(line))
    return np.clip(radius + 0.5 - distance, 0.0, 1.0)


def _patch(
    shape: tuple[int, int], random: np.random.Generator, radius: float, edge: float
) -> np.ndarray:
    """Returns the cover f[H, W] of an irregular patch.

    Args:
      shape: the height and width of the picture.
      random: the source of its place and form.
      radius: its mean radius, as a share of the smaller side.
      edge: the width of its soft edge in pixels.
    """
    reach = radius * min(shape)
    centre = [random.uniform(1.3 * reach, size - 1.3 * reach) for size in shape]
    y, x = np.mgrid[: shape[0], : shape[1]]
    angle = np.arctan2(y - centre[0], x - centre[1])
    waves = sum(
        random.normal(0, 0.07) * np.cos(k * angle + random.uniform(0, 2 * np.pi))
        for k in range(2, 6)
    )
    distance = np.hypot(y - centre[0], x - centre[1]) - reach * (1 + waves)
    return 1.0 / (1.0 + np.exp(np.clip(distance / max(edge, 1e-3) * 2.2, -50, 50)))
