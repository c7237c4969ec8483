"""Data sets of tensorflow-datasets as builders that need no TensorFlow: one entry per data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aejax.data.pictures import sprites
from aejax.data.pictures.archives import Archives
from aejax.data.pictures.faces import FACES
from aejax.data.pictures.upstream import read_idx
from aejax.errors import UserError
from aejax.optional import needs


class Recipe(NamedTuple):
    """How one data set is made."""

    builder: type  # a tfds builder class
    origin: Callable[[], str]  # where the files came from; known once they are read


def digits(manual_dir: Path | None, folder: Path) -> Recipe:
    """scikit-learn's 1,797 digits (UCI Optical Recognition of Handwritten Digits, test part)."""
    tfds = needs("tensorflow_datasets", "preparing digits")

    class Digits(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # pyright: ignore
        """1,797 handwritten digits of 8x8 pixels with 17 grey levels, 0 to 16."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(8, 8, 1)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                description="Handwritten digits of scikit-learn's load_digits, levels 0 to 16.",
                features=tfds.features.FeaturesDict(features),
                disable_shuffling=True,
                metadata=tfds.core.MetadataDict(scale=16),  # the stored value that means one
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            found = needs("sklearn.datasets", "preparing digits").load_digits()
            return _pictures(found.images.astype(np.uint8), found.target)

    return Recipe(Digits, lambda: "scikit-learn")


class Idx(NamedTuple):
    """A data set of 28x28 pictures in the four files of MNIST's format."""

    counts: Mapping[str, int] = {"train": 60_000, "t10k": 10_000}
    # The times in upstream's gzip headers, to know files again that were re-headered.
    times: Mapping[str, int] = {}

    def __call__(self, name: str, manual_dir: Path | None, folder: Path) -> Recipe:
        """The stock builder, reading the four files itself; records, version and name stay."""
        tfds = needs("tensorflow_datasets", f"preparing {name}")
        stock = tfds.builder_cls(name)
        archives = Archives(manual_dir, folder, stock.url_infos)
        # All four are read before anything is written, so that a damaged one stops early.
        splits = {
            "train": self._read(archives, stock.URL, "train"),
            "test": self._read(archives, stock.URL, "t10k"),
        }

        class Prepared(stock, skip_registration=True):  # pyright: ignore
            """The stock data set, prepared without TensorFlow."""

            name = stock.name
            pkg_dir_path = stock.pkg_dir_path

            def _split_generators(self, dl_manager):
                return {split: _pictures(*columns) for split, columns in splits.items()}

            def _generate_examples(self):
                raise AssertionError("the splits hold their examples")

        files = [path.name for path in archives.used.values()]
        verified = archives.verified(
            {file: self.times.get(file.partition("-")[0]) for file in files}
        )
        return Recipe(Prepared, lambda: _origin(manual_dir, verified))

    def _read(self, archives: Archives, url: str, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Pictures u8[N, 28, 28] and labels u8[N] of one part."""
        files = {"images": f"{part}-images-idx3-ubyte.gz", "labels": f"{part}-labels-idx1-ubyte.gz"}
        paths = archives.download({key: url + file for key, file in files.items()})
        images = read_idx(paths["images"], (self.counts[part], 28, 28))
        labels = read_idx(paths["labels"], (self.counts[part],))
        if labels.max() > 9:
            raise UserError(f"{paths['labels']} holds label {labels.max()}; there are 0 to 9")
        return images, labels


IDX = {
    "mnist": Idx(),
    "fashion_mnist": Idx(times={"train": 1504176606, "t10k": 1504176627}),
    "kmnist": Idx(),
}


def stock(name: str, manual_dir: Path | None, folder: Path) -> Recipe:
    """Any other image data set of tensorflow-datasets, through its own builder."""
    tfds = needs("tensorflow_datasets", f"preparing {name}")
    try:
        found = tfds.builder_cls(name.partition("/")[0])
    except tfds.core.registered.DatasetNotFoundError as error:
        own = ", ".join([*IDX, *FACES, *sprites.GRIDS])
        here = f"; write ./{name} for the folder of that name" if Path(name).is_dir() else ""
        raise UserError(
            f"unknown data set {name!r}: there are digits, {own}, "
            "tensorflow-datasets' image data sets by their names there, and any folder of pictures "
            f"by its path{here}"
        ) from error
    archives = Archives(manual_dir, folder, found.url_infos)

    class Prepared(found, skip_registration=True):  # pyright: ignore
        """The stock data set, with archives that are unpacked without TensorFlow."""

        name = found.name
        pkg_dir_path = found.pkg_dir_path

        def _split_generators(self, dl_manager):
            return found._split_generators(self, archives)

    return Recipe(Prepared, lambda: _origin(manual_dir, archives.verified({})))


def recipe(name: str, manual_dir: Path | None, folder: Path) -> Recipe:
    """How a data set is made.

    Args:
      name: "digits", one of IDX, FACES or sprites.GRIDS, or an image data set of
        tensorflow-datasets.
      manual_dir: a folder with the upstream files, or None to download them.
      folder: where downloads go.

    Raises:
      UserError: unknown name, files missing or damaged, a package missing.
    """
    if name == "digits":
        return digits(manual_dir, folder)
    if name in FACES:
        return Recipe(*FACES[name](manual_dir))
    if name in IDX:
        return IDX[name](name, manual_dir, folder)
    if name in sprites.GRIDS:
        return Recipe(sprites.builder(name), lambda: "rendered")
    return stock(name, manual_dir, folder)


def _pictures(images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
    """Examples with pictures of PIL, since tfds encodes arrays by TensorFlow."""
    image = needs("PIL.Image", "preparing pictures")
    for i, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        yield i, {"image": image.fromarray(pixels), "label": int(label)}


def _origin(manual_dir: Path | None, verified: bool) -> str:
    source = "downloaded" if manual_dir is None else "from --manual-dir"
    checked = "upstream checksums verified" if verified else "not upstream's, content hash recorded"
    return f"{source}, {checked}"
