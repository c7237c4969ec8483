"""The solar cells of elpv-dataset: 2,624 electroluminescence pictures, many with defects.

The pictures have a licence for non-commercial use (CC BY-NC-SA 4.0) and are never shipped:

    pip download --no-deps --dest DIR elpv-dataset

Source: S. Deitsch et al. 2019, "Automatic classification of defective photovoltaic module cells in
electroluminescence images", Solar Energy 185.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from aejax.data.pictures.folder import MOST_PIXELS, opened
from aejax.data.pictures.inspection import Parts, Reading, as_splits, divided
from aejax.data.splitting import Splits
from aejax.errors import UserError
from aejax.files import members, read_bytes, reading
from aejax.files.archives import LARGEST

LABELS = "elpv_dataset/data/labels.csv"
BRING = (
    "run `pip download --no-deps --dest DIR elpv-dataset` and give DIR by --manual-dir, or "
    "install the package"
)
# sha256 over the table of labels and the pictures of version 1.0.0.post1, in the table's order.
SHA256 = "78ce8c6eb2b8fb03e9d864c92380dde91c030f2a7ee99f72186a42e27ad20ad0"
Read = Callable[[str], bytes]


def solar_cells(
    kind: Literal["mono", "poly"],
    manual_dir: Path | None = None,
    *,
    size: int = 64,
    held_out: float = 0.2,
    seed: int = 0,
) -> Splits:
    """Reads the solar cells of one kind, as `aejax.data.pictures.inspection` describes.

    Cells with a defect probability of 0 are good and divided into train, validation and test; those
    with 1 are the anomalous ones of the test split, and those in between are left out. Exposure is
    evened out, because it differs between modules.

    Args:
      kind: monocrystalline or polycrystalline cells.
      manual_dir: a folder with the wheel of elpv-dataset or with its folder elpv_dataset; None: the
        installed package is read.
      size: the height and width to which the pictures of 300 x 300 pixels are resized.
      held_out: the share of good cells for validation, and again for test.
      seed: the seed of the division.

    Raises:
      UserError: if the pictures are missing or damaged.
    """
    read, origin = _source(manual_dir)
    reading = Reading((size, size), "grey", even=True)
    digest, good, bad = hashlib.sha256(), [], []
    table = read(LABELS)
    digest.update(table)
    for line in table.decode().splitlines():
        path, probability, of = line.split()
        content = read(f"elpv_dataset/data/{path}")
        digest.update(content)
        if of == kind and float(probability) in (0.0, 1.0):
            (good if float(probability) == 0.0 else bad).append(
                reading.prepared(_pixels(content, path))
            )
    known = "content verified" if digest.hexdigest() == SHA256 else "not the known content"
    train, validation, test = divided(len(good), held_out, seed, test=True)
    parts = [
        Parts([good[i] for i in rows], np.zeros(len(rows), np.int32))
        for rows in (train, validation)
    ]
    label = np.repeat(np.array([0, 1], np.int32), [len(test), len(bad)])
    parts.append(Parts([*(good[i] for i in test), *bad], label))
    return as_splits(f"elpv-{kind}", parts, ("good", "defective"), f"{origin}, {known}")


def _source(manual_dir: Path | None) -> tuple[Read, str]:
    """Returns a function name -> bytes that reads a file of the package, and the file's origin."""
    if manual_dir is None:
        found = importlib.util.find_spec("elpv_dataset")
        if found is None or found.origin is None:
            raise UserError(f"the solar cells are not there: {BRING}")
        folder, origin = Path(found.origin).parent.parent, "the package elpv-dataset"
    else:
        folder, origin = manual_dir.expanduser(), "from --manual-dir"
        wheels = sorted(folder.glob("elpv_dataset-*.whl"))
        if wheels and not (folder / LABELS).is_file():
            return _of_wheel(wheels[-1]), origin

    def read(name: str) -> bytes:
        with reading(folder / name, BRING, f"{folder / name} is missing (no such file): {BRING}"):
            return read_bytes(folder / name, LARGEST)

    return read, origin


def _of_wheel(wheel: Path) -> Read:
    with reading(wheel, BRING, says="is damaged"):
        found = dict(members(wheel, lambda name: name.startswith("elpv_dataset/data/")))

    def read(name: str) -> bytes:
        if name not in found:
            raise UserError(f"{wheel} is damaged (it has no {name!r:.80}): {BRING}")
        return found[name]

    return read


def _pixels(content: bytes, name: str) -> np.ndarray:
    file = io.BytesIO(content)
    with reading(Path(name), BRING, says="is damaged"), opened(file) as picture:
        if picture.width * picture.height > MOST_PIXELS:
            raise ValueError(f"it has {picture.width}x{picture.height} pixels")
        return np.asarray(picture.convert("L"), np.uint8)
