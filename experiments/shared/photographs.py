"""Crops of the photographs and textures that scikit-image and scikit-learn carry.

Every picture belongs to one split, so that no picture of a test crop was seen in training. Grey
pictures have three equal channels. The sources and licences are listed in the data folders of
these packages.
"""

from __future__ import annotations

import numpy as np

import aejax as ae
from aejax.optional import needs
from experiments.shared.experiment import Splits

SIDE = 64  # the height and width of a crop
SEED = 22  # the seed of the places of the crops
SKLEARN = ("china", "flower")
# Split -> its pictures; all but those of SKLEARN are functions of skimage.data.
PICTURES = {
    "train": (
        "astronaut", "brick", "chelsea", "china", "coffee",
        "coins", "gravel", "immunohistochemistry", "moon", "retina",
    ),
    "validation": ("camera", "rocket"),
    "test": ("flower", "grass", "hubble_deep_field", "stereo_motorcycle"),
}  # fmt: skip


def photographs(train: int, validation: int, test: int) -> Splits:
    """Returns splits with this many crops u8[64, 64, 3]; labels are indices of pictures.

    Raises:
      UserError: if scikit-image or scikit-learn is not installed.
    """
    counts = {"train": train, "validation": validation, "test": test}
    parts = [_crops(part, count) for part, count in counts.items()]
    return ae.data.splits(parts[0], parts[1], parts[2], scale=255.0)


def _crops(part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the crops u8[N, 64, 64, 3] of a split, and the index of the picture of each."""
    random = np.random.default_rng([SEED, list(PICTURES).index(part)])
    pictures = [_picture(name) for name in PICTURES[part]]
    label = np.arange(count) % len(pictures)
    found = []
    for i in label:
        top, left = (int(random.integers(size - SIDE + 1)) for size in pictures[i].shape[:2])
        found.append(pictures[i][top : top + SIDE, left : left + SIDE])
    return np.stack(found), label.astype(np.int32)


def _picture(name: str) -> np.ndarray:
    """Returns a picture u8[H, W, 3]."""
    if name in SKLEARN:
        return needs("sklearn.datasets", "image-tokenizer").load_sample_image(f"{name}.jpg")
    found = getattr(needs("skimage.data", "image-tokenizer"), name)()
    found = np.asarray(found[0] if isinstance(found, tuple) else found)
    return found[..., :3] if found.ndim == 3 else np.repeat(found[..., None], 3, axis=-1)
