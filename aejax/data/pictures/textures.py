"""Crops of five photographs, some with painted defects, for visual inspection.

The photographs are brick, grass and gravel of scikit-image (grey) and china and flower of
scikit-learn (in colour). Each is divided into vertical strips, of which train, validation and test
have their own, so that no pixel of a test crop was seen in training.
"""

from __future__ import annotations

import functools

import numpy as np

from aejax.data.pictures.defects import DEFECTS, paint
from aejax.data.pictures.inspection import GOOD, Parts, as_splits
from aejax.data.splitting import Splits
from aejax.errors import UserError
from aejax.optional import needs

GREY = ("brick", "grass", "gravel")
TEXTURES = (*GREY, "china", "flower")
SIDE = 64  # the height and width of a crop
STRIPS = (
    "aabaacaa"  # the split of each vertical strip, from the left: a train, b validation, c test
)
COUNTS = {"train": 1_000, "validation": 200, GOOD: 100, "defect": 30}  # the last for each kind
SEED = 20_261_129  # the seed of crops and defects


def textures(name: str) -> Splits:
    """Returns the splits of one texture; the test split has masks.

    Raises:
      UserError: if there is no such texture, or the package that holds it is not installed.
    """
    if name not in TEXTURES:
        raise UserError(f"there is no texture {name!r}: choose one of {', '.join(TEXTURES)}")
    photograph = _photograph(name)
    random = np.random.default_rng([SEED, TEXTURES.index(name)])
    empty = np.zeros((SIDE, SIDE), bool)
    train = [_crop(photograph, "a", random) for _ in range(COUNTS["train"])]
    validation = [_crop(photograph, "b", random) for _ in range(COUNTS["validation"])]
    pictures = [_crop(photograph, "c", random) for _ in range(COUNTS[GOOD])]
    masks, label = [empty] * len(pictures), [0] * len(pictures)
    for i, kind in enumerate(DEFECTS):
        for _ in range(COUNTS["defect"]):
            painted, mask = paint(kind, _crop(photograph, "c", random), random)
            pictures.append(painted)
            masks.append(mask)
            label.append(i + 1)
    good = [Parts(rows, np.zeros(len(rows), np.int32)) for rows in (train, validation)]
    parts = [*good, Parts(pictures, np.asarray(label, np.int32), masks)]
    package = "scikit-image" if name in GREY else "scikit-learn"
    return as_splits(f"texture-{name}", parts, (GOOD, *DEFECTS), f"{package}, painted defects")


def _photograph(name: str) -> np.ndarray:
    """Returns the photograph of a texture, u8[H, W, C], whose strips are at least SIDE wide."""
    if name in GREY:
        return np.asarray(getattr(needs("skimage.data", f"the texture {name}"), name)())[..., None]
    return needs("sklearn.datasets", f"the texture {name}").load_sample_image(f"{name}.jpg")


def _crop(photograph: np.ndarray, split: str, random: np.random.Generator) -> np.ndarray:
    """Returns a random crop u8[SIDE, SIDE, C] of the strips of a split."""
    left = int(random.choice(_ways(photograph.shape[1], split)))
    top = int(random.integers(photograph.shape[0] - SIDE + 1))
    return photograph[top : top + SIDE, left : left + SIDE]


@functools.cache
def _ways(width: int, split: str) -> np.ndarray:
    """Returns the first column of each crop that lies in strips of this split alone, i64[n]."""
    strip = width // len(STRIPS)
    of = np.array([*STRIPS])[np.minimum(np.arange(width) // strip, len(STRIPS) - 1)]
    return np.flatnonzero(np.lib.stride_tricks.sliding_window_view(of == split, SIDE).all(axis=1))
