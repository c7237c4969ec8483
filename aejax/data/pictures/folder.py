"""A folder of pictures; its subfolders, where it has any, are the classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aejax.data.pictures.store import Prepared
from aejax.errors import UserError
from aejax.optional import needs

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
# Pillow's names of what holds 8 bits of grey; anything else of 8 bits is read as red, green, blue.
GREY = frozenset({"1", "L", "LA"})
COLOUR = frozenset({"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"})


def read_folder(folder: Path) -> Prepared:
    """Reads all pictures of a folder.

    Args:
      folder: pictures, or subfolders with pictures, one for each class.

    Returns:
      One split, image u8[N, H, W, 1] where all are grey and u8[N, H, W, 3] where one is not, in
      the order of the paths, and label i32[N] where there are subfolders.

    Raises:
      UserError: no such folder, no pictures, one that cannot be read, or sizes that differ.
    """
    paths = _paths(folder)
    headers = [_header(path) for path in paths]
    (width, height), _ = headers[0]
    for path, (size, _) in zip(paths, headers, strict=True):
        if size != (width, height):
            raise UserError(
                f"{path} has {size[0]}x{size[1]} pixels, {paths[0]} has {width}x{height}: "
                "all pictures must have one size"
            )
    grey = all(mode in GREY for _, mode in headers)
    pixels = np.empty((len(paths), height, width, 1 if grey else 3), np.uint8)
    for i, path in enumerate(paths):
        np.copyto(pixels[i], _decoded(path, "L" if grey else "RGB").reshape(pixels.shape[1:]))
    columns: dict[str, np.ndarray] = {"image": pixels}
    classes: tuple[str, ...] = ()
    if any(path.parent != folder for path in paths):
        of = [path.relative_to(folder).parts[0] for path in paths]
        classes = tuple(sorted(set(of)))
        columns["label"] = np.asarray([classes.index(name) for name in of], np.int32)
    name = folder.resolve().name
    return Prepared(name, {"train": columns}, 255.0, classes, "a folder of pictures")


def _paths(folder: Path) -> list[Path]:
    """All pictures in a folder, sorted, either all directly in it or all in subfolders."""
    if not folder.is_dir():
        raise UserError(
            f"{folder} is no folder: give the name of a data set or a folder of pictures"
        )
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )
    if not found:
        raise UserError(f"{folder} holds no pictures ({' '.join(sorted(SUFFIXES))})")
    direct = [path for path in found if path.parent == folder]
    if direct and len(direct) < len(found):
        raise UserError(
            f"{folder} holds pictures, as {direct[0].name}, and subfolders with pictures: "
            "subfolders are classes, so move all into subfolders or none"
        )
    return found


def _header(path: Path) -> tuple[tuple[int, int], str]:
    """The size, width and height, and the mode of a picture, without decoding it."""
    image = needs("PIL.Image", "reading pictures")
    try:
        with image.open(path) as picture:
            size, mode = picture.size, picture.mode
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} is no picture that can be read ({error})") from error
    if mode not in GREY | COLOUR:
        raise UserError(f"{path} has pixels of kind {mode}: convert it to 8 bits a channel")
    return size, mode


def _decoded(path: Path, mode: str) -> np.ndarray:
    image = needs("PIL.Image", "reading pictures")
    try:
        with image.open(path) as picture:
            return np.asarray(picture.convert(mode), np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error})") from error
