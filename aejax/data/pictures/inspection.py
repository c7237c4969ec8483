"""Pictures of manufactured parts: good ones to train on, and good and defective ones to test on.

    train, validation, test = inspection("bottle", size=128)

A folder has the layout of MVTec AD: train/good, test/good, test/DEFECT and, where masks are known,
ground_truth/DEFECT. Without a folder test, some of the good pictures become the test split; without
a folder train, the folder itself holds the good pictures. Train and validation are always good:
detectors are fitted on train, and thresholds are chosen on validation.

Every split has the columns image u8[M, h, w, C] of tiles, label i32[M] (0: good), and where the
tiles belong: picture, top and left i32[M]. Without tiles each picture is one tile. A test split
with known masks also has defect bool[M, h, w].
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from aejax.data.class_folder import paths_in
from aejax.data.order import permutation
from aejax.data.pictures.folder import GREY, SUFFIXES, decoded, header
from aejax.data.pictures.tiles import Tiles, cut
from aejax.data.split import Split
from aejax.data.splitting import Splits, splits
from aejax.errors import UserError
from aejax.optional import needs

Channels = Literal["grey", "rgb"]
GOOD = "good"
BRIGHT = 128  # the mean grey value of a picture whose exposure was evened out
MASK = 128  # a pixel of a mask is anomalous from this grey value on


class Parts(NamedTuple):
    """Pictures of parts before they are cut into tiles."""

    pictures: Sequence[np.ndarray]  # N arrays u8[H, W, C]
    label: np.ndarray  # i32[N], 0: good, otherwise the kind of the defect
    masks: Sequence[np.ndarray] | None = None  # N arrays bool[H, W]; None: they are not known


class Reading(NamedTuple):
    """How the pictures of one data set are read; new pictures of such parts are read alike."""

    size: tuple[int, int] | None  # (height, width) of resized pictures; None: as they are
    channels: Channels
    even: bool = False  # whether each picture is scaled to a mean of BRIGHT, against exposure

    def picture(self, path: Path) -> np.ndarray:
        """Reads a picture, u8[H, W, C]; raises UserError if the file is damaged."""
        header(path)  # refuses files that are no pictures, and more than 8 bits per channel
        return self.prepared(decoded(path, "L" if self.channels == "grey" else "RGB"))

    def prepared(self, pixels: np.ndarray) -> np.ndarray:
        """Returns pixels u8[H, W] or u8[H, W, C], resized and evened out, u8[height, width, C]."""
        found = resized(pixels, self.size) if self.size else _with_channels(pixels)
        if not self.even:
            return found
        mean = max(float(found.mean()), 1.0)
        return np.clip(np.round(found * (BRIGHT / mean)), 0, 255).astype(np.uint8)

    def mask(self, path: Path, size: tuple[int, int]) -> np.ndarray:
        """Reads a mask, bool[H, W], resized as its picture is.

        Args:
          path: the mask's file.
          size: the width and height of the picture's file.

        Raises:
          UserError: if the mask has another size than the picture, or is damaged.
        """
        found = header(path)[0]
        if found != size:
            raise UserError(
                f"the mask {path} has {found[0]}x{found[1]} pixels, but its picture has "
                f"{size[0]}x{size[1]}: restore the mask"
            )
        pixels = decoded(path, "L")
        if self.size:
            image = needs("PIL.Image", "reading pictures")
            nearest = image.Resampling.NEAREST
            pixels = np.asarray(image.fromarray(pixels).resize(self.size[::-1], nearest))
        return pixels >= MASK


def inspection(
    folder: str | os.PathLike,
    *,
    size: int | None = None,
    tile: int | None = None,
    overlap: int = 0,
    channels: Channels | None = None,
    even: bool = False,
    held_out: float = 0.2,
    seed: int = 0,
) -> Splits:
    """Reads a folder of parts as train, validation and test splits.

    Args:
      folder: a folder in the layout of MVTec AD, or of good pictures alone.
      size: the height and width to which pictures and masks are resized; None: all have one size.
      tile: the side of the tiles into which pictures are cut; None: each picture is one tile.
      overlap: the least number of pixels that neighbouring tiles have in common.
      channels: "grey" or "rgb"; None: those of the pictures, which must all be of one kind.
      even: whether each picture is scaled to the same mean, so that differences in exposure are no
        anomalies.
      held_out: the share of good train pictures that become the validation split, and again the
        share that become good test pictures if the folder has none.
      seed: the seed of this division.

    Raises:
      UserError: if there are no good pictures to train on, a picture cannot be read, sizes or
        channels differ and were not given, or a mask is missing or has another size.
    """
    root = Path(folder).expanduser()
    good = _good(root)
    tests = _tests(root / "test")
    every = [*good, *(path for paths in tests.values() for path in paths)]
    sizes = _check_alike(every, size, channels)
    square = None if size is None else (size, size)
    reading = Reading(square, channels or ("grey" if _is_grey(every[0]) else "rgb"), even)
    train, validation, test = divided(len(good), held_out, seed, test=not tests.get(GOOD))
    defects = [name for name in tests if name != GOOD]
    chosen = [(good[i], GOOD) for i in test]
    chosen += [(path, name) for name in (GOOD, *defects) for path in tests.get(name, ())]
    masks = _masks(root / "ground_truth", chosen, sizes, reading) if defects else None
    classes = (GOOD, *defects)
    labels = np.asarray([classes.index(name) for _, name in chosen], np.int32)
    parts = [
        Parts([reading.picture(good[i]) for i in rows], np.zeros(len(rows), np.int32))
        for rows in (train, validation)
    ]
    parts.append(Parts([reading.picture(path) for path, _ in chosen], labels, masks))
    name = root.resolve().name
    return as_splits(name, parts, classes, "a folder of parts", tile=tile, overlap=overlap)


def divided(
    count: int, held_out: float, seed: int, test: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divides the indices of good pictures at random into train, validation and test.

    Args:
      count: the number of good pictures.
      held_out: the share of them for validation, and the same again for test.
      seed: the seed of the division.
      test: whether the test split gets any.

    Raises:
      UserError: if train or a wanted split would be empty.
    """
    each = round(held_out * count)
    if not 0 < each < count - (each if test else 0):
        raise UserError(
            f"{count} good pictures with a share of {held_out:g} held out leave none to train on "
            "or none to hold out: give more pictures or another share"
        )
    order = permutation(count, seed, 0)
    ends = (count - each * (1 + test), count - each * test)
    train, validation, rest = np.split(order, ends)
    return np.sort(train), np.sort(validation), np.sort(rest)


def as_splits(
    name: str,
    parts: Sequence[Parts],
    classes: Sequence[str],
    origin: str,
    *,
    tile: int | None = None,
    overlap: int = 0,
) -> Splits:
    """Cuts the pictures of train, validation and test into tiles and returns the splits.

    Args:
      name: the name of the data set.
      parts: the pictures of the three splits, all of one size.
      classes: the names of the labels; the first is that of good parts.
      origin: where the pictures came from.
      tile, overlap: as in `inspection`.
    """
    columns = []
    for part in parts:
        shape = part.pictures[0].shape[:2]
        tiles = cut(part.pictures, shape if tile is None else (tile, tile), overlap)
        found = {
            "image": tiles.values,
            "label": np.asarray(part.label, np.int32)[tiles.picture],
            "picture": tiles.picture,
            "top": tiles.top,
            "left": tiles.left,
        }
        if part.masks is not None:
            found["defect"] = cut(part.masks, tiles.values.shape[1:3], overlap).values
        columns.append(found)
    return splits(
        name, columns, field="image", scale=255.0, binarise="none", classes=tuple(classes),
        origin=origin,
    )  # fmt: skip


def tiles_of(split: Split) -> Tiles:
    """Returns a split's tiles and their places; the tiles are the split's column `image`."""
    return Tiles(*(split.arrays[name] for name in ("image", "picture", "top", "left")))


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a picture u8[H, W] or u8[H, W, C], resized to (height, width), u8[height, width, C].

    Pixels are averaged where the picture shrinks (Pillow's bilinear filter).
    """
    image = needs("PIL.Image", "resizing pictures")
    flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    found = image.fromarray(flat).resize(size[::-1], image.Resampling.BILINEAR)
    return _with_channels(np.asarray(found, np.uint8))


def _with_channels(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _good(root: Path) -> list[Path]:
    """Returns the paths of the good pictures to train on."""
    train = root / "train"
    if root.is_dir() and not train.is_dir():
        good = sorted(p for p in root.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES)
        good = [path for path in good if not path.name.startswith(".")]
        others = {path.name for path in root.iterdir() if path.is_dir()} - {"test", "ground_truth"}
        if good and not others:
            return good
        found = f"the folders {', '.join(sorted(others))}" if others else "no pictures"
        raise UserError(
            f"{root} holds {found} and no folder train, so it is not known which parts are good: "
            f"put good pictures into {train / GOOD}, and all others into {root / 'test'}"
        )
    if not train.is_dir():
        raise UserError(f"there is no folder {root}: give a folder with train/good in it")
    others = sorted(path.name for path in train.iterdir() if path.is_dir() and path.name != GOOD)
    if not (train / GOOD).is_dir() or others:
        found = ", ".join(others) or "no folder"
        raise UserError(
            f"{train} holds {found}, but detectors learn from good parts alone: put good pictures "
            f"into {train / GOOD}, and all others into {root / 'test'}"
        )
    return paths_in(train / GOOD, SUFFIXES, "pictures of good parts")


def _tests(folder: Path) -> dict[str, list[Path]]:
    """Returns name of a subfolder, such as a kind of defect -> the paths of its pictures."""
    if not folder.is_dir():
        return {}
    kinds = sorted(path for path in folder.iterdir() if path.is_dir())
    return {path.name: paths_in(path, SUFFIXES, "pictures") for path in kinds}


def _is_grey(path: Path) -> bool:
    return header(path)[1] in GREY


def _check_alike(
    paths: Sequence[Path], size: int | None, channels: Channels | None
) -> dict[Path, tuple[int, int]]:
    """Returns path -> (width, height) of pictures, after checking that they are alike."""
    first, grey = header(paths[0])[0], _is_grey(paths[0])
    found = {}
    for path in paths:
        (width, height), mode = header(path)
        if size is None and (width, height) != first:
            raise UserError(
                f"{path} has {width}x{height} pixels, but {paths[0]} has {first[0]}x{first[1]}: "
                "give a size to which all pictures are resized"
            )
        if channels is None and (mode in GREY) != grey:
            kinds = ("grey", "in colour") if mode in GREY else ("in colour", "grey")
            raise UserError(
                f"{path} is {kinds[0]}, but {paths[0]} is {kinds[1]}: choose channels, grey or "
                "rgb, to which all pictures are converted"
            )
        found[path] = (width, height)
    return found


def _masks(
    folder: Path,
    chosen: Sequence[tuple[Path, str]],
    sizes: dict[Path, tuple[int, int]],
    reading: Reading,
) -> list[np.ndarray] | None:
    """Reads the mask of each test picture; returns None if there is no folder of masks."""
    if not folder.is_dir():
        return None
    found = []
    for path, kind in chosen:
        size = sizes[path]
        if kind == GOOD:
            shape = reading.size or size[::-1]
            found.append(np.zeros(shape, bool))
            continue
        names = [folder / kind / f"{path.stem}{end}.png" for end in ("_mask", "")]
        there = [name for name in names if name.is_file()]
        if not there:
            raise UserError(
                f"the mask of {path} is missing: put it at {names[0]}, or remove {folder} to do "
                "without masks"
            )
        found.append(reading.mask(there[0], size))
    return found
