"""Two small data sets of grey faces, for use where celeb_a is not available."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from aejax.data.builder import NamedDataset, builder, examples
from aejax.errors import UserError
from aejax.files import read_npz, reading
from aejax.optional import needs

FREY = "frey_faces.npz"
LFW = 100  # the number of faces in lfw_subset, which come before its other pictures


def frey_faces(name: str, manual_dir: Path | None, folder: Path) -> NamedDataset:
    """Returns Brendan Frey's video of a face, 1,965 frames of 28x20 pixels, read from manual_dir.

    Consecutive frames are almost equal, so each split consists of blocks of time, and `blocks`
    leaves out the frames at the borders of validation and test blocks.

    Raises:
      UserError: if no folder was given, or if its file is missing or damaged.
    """
    if manual_dir is None:
        raise UserError(
            f"frey_faces cannot be downloaded: give by --manual-dir a folder with the file {FREY}, "
            "which holds `images` u8[N, H, W], the frames in the order of the video"
        )
    images = _frames(manual_dir / FREY)
    return _made(
        name,
        "Frames of a video of one face, in blocks of time.",
        {part: images[rows] for part, rows in blocks(len(images)).items()},
        "from --manual-dir, content hash recorded",
    )


def lfw_subset(name: str, manual_dir: Path | None, folder: Path) -> NamedDataset:
    """Returns the 100 faces, 25x25 pixels, that scikit-image's lfw_subset contains."""
    data = needs("skimage.data", f"preparing {name}")
    # The values are averages over three channels, so they are rounded to the nearest integer.
    images = np.round(255.0 * data.lfw_subset()[:LFW]).astype(np.uint8)
    return _made(name, "Faces of many people.", {"train": images}, "scikit-image")


def blocks(frames: int, count: int = 15, border: int = 10) -> dict[str, np.ndarray]:
    """Divides a video into blocks of time: one in five is for test, one in ten for validation.

    Args:
      frames: the number of frames in the video.
      count: the number of blocks, whose lengths differ by one frame at most.
      border: the number of frames left out at both ends of each validation and test block, since
        those frames resemble neighbouring train frames.

    Returns:
      {"train": ..., "validation": ..., "test": ...}: the indices of each split's frames, i64[n].

    Raises:
      UserError: if a block would be empty.
    """
    if frames // count <= 2 * border:
        raise UserError(
            f"{frames} frames are too few for {count} blocks of time: give more than "
            f"{2 * border * count}"
        )
    parts: dict[str, list[np.ndarray]] = {"train": [], "validation": [], "test": []}
    for i, block in enumerate(np.array_split(np.arange(frames), count)):
        part = "test" if i % 5 == 4 else "validation" if i % 10 == 2 else "train"
        parts[part].append(block if part == "train" else block[border:-border])
    return {part: np.concatenate(found) for part, found in parts.items()}


def _frames(path: Path) -> np.ndarray:
    """Reads the frames u8[N, H, W] of an .npz file.

    Raises:
      UserError: if the file is missing or damaged, or if it contains something else.
    """
    missing = f"{path} is missing: put a file there that holds `images` u8[N, H, W]"
    with reading(path, "give an .npz with `images`", missing):
        images = read_npz(path)["images"]
    if images.dtype != np.uint8 or images.ndim != 3:
        raise UserError(
            f"`images` in {path} has dtype {images.dtype} and shape {images.shape}: give an array "
            "u8[N, H, W]"
        )
    return images


def _made(dataset: str, about: str, parts: Mapping[str, np.ndarray], origin: str) -> NamedDataset:
    """Builds the NamedDataset of grey pictures without labels.

    Args:
      dataset: the name of the data set.
      about: its description.
      parts: name of a split -> its pictures, u8[N, H, W].
      origin: where the pictures come from.
    """
    features = needs("tensorflow_datasets", f"preparing {dataset}").features
    shape = (*next(iter(parts.values())).shape[1:], 1)
    splits = {part: examples(images) for part, images in parts.items()}
    made = builder(dataset, about, {"image": features.Image(shape=shape)}, splits)
    return NamedDataset(made, lambda: origin)
