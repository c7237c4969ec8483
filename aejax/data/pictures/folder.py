"""Reads a folder of pictures; if it has subfolders, each of them is a class."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from aejax.data.class_folder import classes_of, paths_in
from aejax.data.pictures.store import Prepared
from aejax.errors import UserError
from aejax.files import MALFORMED, open_file, reason
from aejax.optional import needs

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
# Pillow chooses by the content, not by the name, and would give EPS to a program, Ghostscript.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# Pillow's modes of grey pictures, and its modes of colour pictures, which are converted to RGB. All
# of them have at most 8 bits per channel.
GREY = frozenset({"1", "L", "LA"})
COLOUR = frozenset({"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"})


# The largest picture that is decoded. A file of 484 KB may hold 13,000 x 13,000 equal pixels.
MOST_PIXELS = 2**25
MOST_BYTES = 8 * MOST_PIXELS  # of the largest file of a picture


def read_folder(folder: Path) -> Prepared:
    """Reads all pictures of a folder.

    Args:
      folder: a folder of pictures, or of subfolders with pictures, one for each class.

    Returns:
      A data set with the single split "train": `image` u8[N, H, W, 1] if all pictures are grey,
      otherwise u8[N, H, W, 3], in the order of the paths, and `label` i32[N] if there are
      subfolders.

    Raises:
      UserError: if the folder does not exist or holds no pictures, if a picture cannot be read, or
        if the pictures have different sizes.
    """
    paths = paths_in(folder, SUFFIXES, "pictures")
    headers = [header(path) for path in paths]
    (width, height), _ = headers[0]
    for path, (size, _) in zip(paths, headers, strict=True):
        if size != (width, height):
            raise UserError(
                f"{path} has {size[0]}x{size[1]} pixels, but {paths[0]} has {width}x{height}: "
                "resize the pictures to one size, for example by "
                "PIL.ImageOps.fit(PIL.Image.open(path), (64, 64)).save(path)"
            )
    grey = all(mode in GREY for _, mode in headers)
    pixels = np.empty((len(paths), height, width, 1 if grey else 3), np.uint8)
    for i, path in enumerate(paths):
        np.copyto(pixels[i], decoded(path, "L" if grey else "RGB").reshape(pixels.shape[1:]))
    columns: dict[str, np.ndarray] = {"image": pixels}
    classes, labels = classes_of(folder, paths)
    if labels is not None:
        columns["label"] = labels
    name = folder.resolve().name
    return Prepared(name, {"train": columns}, 255.0, classes, "a folder of pictures")


@contextlib.contextmanager
def opened(file: BinaryIO) -> Iterator[Any]:
    """Opens a file as a Pillow picture of one of FORMATS, whose pixels are not decoded yet.

    Raises:
      Exception: one of `aejax.files.MALFORMED` if it is none.
    """
    image = needs("PIL.Image", "reading pictures")
    size = file.seek(0, os.SEEK_END)
    if size > MOST_BYTES:  # Pillow reads some formats whole
        raise ValueError(f"it has {size:,} bytes, but {MOST_BYTES:,} at most")
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", image.DecompressionBombWarning)
            with image.open(file, formats=FORMATS) as picture:
                yield picture
    except image.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    except image.UnidentifiedImageError as error:
        raise ValueError("its content is not that of a picture") from error


def header(path: Path) -> tuple[tuple[int, int], str]:
    """Returns (width, height) and the mode of a picture, without decoding its pixels.

    Raises:
      UserError: if the file is not a picture, or has more than 8 bits per channel.
    """
    try:
        with open_file(path) as file, opened(file) as picture:
            size, mode = picture.size, picture.mode
    except MALFORMED as error:
        raise UserError(
            f"{path} cannot be read as a picture ({reason(error)}): restore it or remove it"
        ) from error
    if size[0] * size[1] > MOST_PIXELS:
        raise UserError(
            f"{path} has {size[0]}x{size[1]} pixels, but pictures of at most {MOST_PIXELS:,} "
            "pixels are read: make it smaller or remove it"
        )
    if mode not in GREY | COLOUR:
        raise UserError(f"{path} has pixels of mode {mode}: convert it to 8 bits per channel")
    return size, mode


def decoded(path: Path, mode: str) -> np.ndarray:
    """Returns the pixels of a picture, converted to Pillow's mode "L" or "RGB", u8[H, W(, 3)].

    Raises:
      UserError: if the file is damaged.
    """
    try:
        with open_file(path) as file, opened(file) as picture:
            return np.asarray(picture.convert(mode), np.uint8)
    except MALFORMED as error:
        raise UserError(f"{path} is damaged ({reason(error)}): restore it or remove it") from error
