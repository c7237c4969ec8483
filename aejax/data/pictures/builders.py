"""Every data set of pictures that has a name, as a recipe: one entry a data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aejax.data.builder import Recipe, adapted, builder, examples
from aejax.data.pictures.archives import Archives
from aejax.data.pictures.upstream import read_idx
from aejax.errors import UserError
from aejax.optional import needs


def digits(name: str, manual_dir: Path | None = None, folder: Path | None = None) -> Recipe:
    """scikit-learn's 1,797 digits (UCI Optical Recognition of Handwritten Digits, test part)."""
    features = needs("tensorflow_datasets", f"preparing {name}").features
    found = needs("sklearn.datasets", f"preparing {name}").load_digits()
    made = builder(
        name,
        "Handwritten digits of scikit-learn's load_digits, levels 0 to 16.",
        {"image": features.Image(shape=(8, 8, 1)), "label": features.ClassLabel(num_classes=10)},
        {"train": examples(found.images.astype(np.uint8), label=found.target)},
        scale=16,  # the stored value that means one
    )
    return Recipe(made, lambda: "scikit-learn")


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
        made = adapted(stock, lambda _: {split: enumerate(part) for split, part in splits.items()})
        files = [path.name for path in archives.used.values()]
        verified = archives.verified(
            {file: self.times.get(file.partition("-")[0]) for file in files}
        )
        return Recipe(made, lambda: _origin(manual_dir, verified))

    def _read(self, archives: Archives, url: str, part: str) -> Iterator[dict[str, Any]]:
        """The examples of one part."""
        files = {"images": f"{part}-images-idx3-ubyte.gz", "labels": f"{part}-labels-idx1-ubyte.gz"}
        paths = archives.download({key: url + file for key, file in files.items()})
        images = read_idx(paths["images"], (self.counts[part], 28, 28))
        labels = read_idx(paths["labels"], (self.counts[part],))
        if labels.max() > 9:
            raise UserError(f"{paths['labels']} holds label {labels.max()}; there are 0 to 9")
        return examples(images, label=labels)


IDX = {
    "mnist": Idx(),
    "fashion_mnist": Idx(times={"train": 1504176606, "t10k": 1504176627}),
    "kmnist": Idx(),
}


def stock(name: str, manual_dir: Path | None, folder: Path, own: Iterable[str]) -> Recipe:
    """Any other image data set of tensorflow-datasets, through its own builder.

    Args:
      name: the data set's name there.
      manual_dir: a folder with the upstream files, or None to download them.
      folder: where downloads go.
      own: the names of aejax's own data sets, which the error lists.

    Raises:
      UserError: tensorflow-datasets has no data set of this name, or a file is missing or damaged.
    """
    tfds = needs("tensorflow_datasets", f"preparing {name}")
    try:
        found = tfds.builder_cls(name.partition("/")[0])
    except tfds.core.registered.DatasetNotFoundError as error:
        here = f"; write ./{name} for the folder of that name" if Path(name).is_dir() else ""
        raise UserError(
            f"unknown data set {name!r}: there are {', '.join(own)}, "
            "tensorflow-datasets' image data sets by their names there, and any folder of pictures "
            f"by its path{here}"
        ) from error
    archives = Archives(manual_dir, folder, found.url_infos)
    made = adapted(found, lambda self: found._split_generators(self, archives))
    return Recipe(made, lambda: _origin(manual_dir, archives.verified({})))


def _origin(manual_dir: Path | None, verified: bool) -> str:
    source = "downloaded" if manual_dir is None else "from --manual-dir"
    checked = "upstream checksums verified" if verified else "not upstream's, content hash recorded"
    return f"{source}, {checked}"
