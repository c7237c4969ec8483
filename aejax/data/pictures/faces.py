"""Two small data sets of grey faces, for where celeb_a cannot be had."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from aejax.data.builder import Recipe, builder, examples
from aejax.errors import UserError
from aejax.optional import needs

FREY = "frey_faces.npz"
LFW = 100  # the first pictures of lfw_subset are faces, the others are none


def frey_faces(name: str, manual_dir: Path | None, folder: Path) -> Recipe:
    """1,965 frames of one man's face, 28x20 pixels (Brendan Frey), out of --manual-dir.

    They follow each other in a video, so that neighbours are almost one picture: the splits are
    blocks of time, and `blocks` leaves out frames at their borders.
    """
    if manual_dir is None:
        raise UserError(
            f"frey_faces cannot be downloaded: give --manual-dir, a folder with {FREY}, which "
            "holds `images` u8[N, H, W], the frames in the order of the video"
        )
    images = _frames(manual_dir / FREY)
    return _made(
        name,
        "Frames of a video of one face, in blocks of time.",
        {part: images[rows] for part, rows in blocks(len(images)).items()},
        "from --manual-dir, content hash recorded",
    )


def lfw_subset(name: str, manual_dir: Path | None, folder: Path) -> Recipe:
    """The 100 faces, 25x25 pixels, among scikit-image's lfw_subset."""
    data = needs("skimage.data", f"preparing {name}")
    # Thirds of levels, from an average over three channels, go to the nearest level.
    images = np.round(255.0 * data.lfw_subset()[:LFW]).astype(np.uint8)
    return _made(name, "Faces of many people.", {"train": images}, "scikit-image")


def blocks(frames: int, count: int = 15, border: int = 10) -> dict[str, np.ndarray]:
    """Frames of a video in `count` blocks of time: every fifth is test, every tenth validation.

    Args:
      frames: of the video.
      count: of blocks, as long as each other but for one frame.
      border: frames left out at both ends of a held-out block: they would have neighbours that
        are trained on.

    Returns:
      train, validation and test: numbers of frames, i64[n], in order.

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
    """u8[N, H, W].

    Raises:
      UserError: the file is missing, damaged or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            images = np.asarray(file["images"])
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: it holds `images` u8[N, H, W]") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read ({error}): give an .npz with `images`") from error
    if images.dtype != np.uint8 or images.ndim != 3:
        raise UserError(
            f"{path} holds images {images.dtype} of shape {images.shape}: give u8[N, H, W]"
        )
    return images


def _made(dataset: str, about: str, parts: Mapping[str, np.ndarray], origin: str) -> Recipe:
    """A data set of grey pictures u8[N, H, W] without labels."""
    features = needs("tensorflow_datasets", f"preparing {dataset}").features
    shape = (*next(iter(parts.values())).shape[1:], 1)
    splits = {part: examples(images) for part, images in parts.items()}
    made = builder(dataset, about, {"image": features.Image(shape=shape)}, splits)
    return Recipe(made, lambda: origin)
