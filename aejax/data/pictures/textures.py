"""Crops of five photographs, some with painted defects, for visual inspection.

The photographs are brick, grass and gravel of scikit-image (grey) and china and flower of
scikit-learn (in colour). Each is divided into blocks, of which train, validation and test have
their own, so that no pixel of a test crop was seen before. The blocks of validation and test
alternate like those of a chequerboard, so that both have the same light. Crops of one block
overlap: the 200 crops of validation are as little evidence as about eight independent ones.
"""

from __future__ import annotations

import numpy as np

from aejax.data.pictures.defects import DEFECTS, paint
from aejax.data.pictures.inspection import GOOD, Parts, as_splits
from aejax.data.splitting import Splits
from aejax.errors import UserError
from aejax.optional import needs

GREY = ("brick", "grass", "gravel")
# Texture -> the strength of its defects, by which the residual of principal components has an AUROC
# between 0.6 and 0.9.
TEXTURES = {"brick": 1.0, "grass": 2.0, "gravel": 3.0, "china": 3.0, "flower": 3.0}
SIDE = 64  # the height and width of a crop
# The split of each block of a photograph: a train, b validation, c test.
BLOCKS = ("aabaacaa", "aacaabaa", "aabaacaa", "aacaabaa")
CALM = 15.0  # crops whose brightness has a smaller standard deviation are left out, as even skies
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
    random = np.random.default_rng([SEED, [*TEXTURES].index(name)])
    empty = np.zeros((SIDE, SIDE), bool)
    places = {split: _places(photograph, split) for split in "abc"}
    train = [_crop(photograph, places["a"], random) for _ in range(COUNTS["train"])]
    validation = [_crop(photograph, places["b"], random) for _ in range(COUNTS["validation"])]
    pictures = [_crop(photograph, places["c"], random) for _ in range(COUNTS[GOOD])]
    masks, label = [empty] * len(pictures), [0] * len(pictures)
    for i, kind in enumerate(DEFECTS):
        for _ in range(COUNTS["defect"]):
            crop = _crop(photograph, places["c"], random)
            painted, mask = paint(kind, crop, random, TEXTURES[name])
            pictures.append(painted)
            masks.append(mask)
            label.append(i + 1)
    good = [Parts(rows, np.zeros(len(rows), np.int32)) for rows in (train, validation)]
    parts = [*good, Parts(pictures, np.asarray(label, np.int32), masks)]
    package = "scikit-image" if name in GREY else "scikit-learn"
    return as_splits(f"texture-{name}", parts, (GOOD, *DEFECTS), f"{package}, painted defects")


def _photograph(name: str) -> np.ndarray:
    """Returns the photograph of a texture, u8[H, W, C]; a crop fits into each of its blocks."""
    if name in GREY:
        return np.asarray(getattr(needs("skimage.data", f"the texture {name}"), name)())[..., None]
    return needs("sklearn.datasets", f"the texture {name}").load_sample_image(f"{name}.jpg")


def _crop(photograph: np.ndarray, places: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Returns the crop u8[SIDE, SIDE, C] at one of the places, which is drawn."""
    top, left = places[random.integers(len(places))]
    return photograph[top : top + SIDE, left : left + SIDE]


def _places(photograph: np.ndarray, split: str) -> np.ndarray:
    """Returns the top and the left of each crop of a split, i64[n, 2].

    It lies in blocks of the split, and is no calm one.
    """
    blocks = np.array([[*row] for row in BLOCKS]) == split
    rows, columns = (
        np.minimum(np.arange(size) // (size // count), count - 1)
        for size, count in zip(photograph.shape, blocks.shape, strict=False)
    )
    bright = photograph.astype(np.float64).mean(axis=-1)
    variance = _means(bright**2) - _means(bright) ** 2
    return np.argwhere((_means(blocks[rows][:, columns]) > 1 - 1e-9) & (variance >= CALM**2))


def _means(values: np.ndarray) -> np.ndarray:
    """Returns the mean of each crop, f64[H - SIDE + 1, W - SIDE + 1], by sums from the corner."""
    sums = np.pad(values.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    inside = sums[SIDE:, SIDE:] - sums[SIDE:, :-SIDE] - sums[:-SIDE, SIDE:] + sums[:-SIDE, :-SIDE]
    return inside / SIDE**2
