"""The data sets digits, mnist, fashion_mnist and kmnist, and all image data sets of tfds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aejax.data.builder import NamedDataset, adapted, builder, examples
from aejax.data.pictures.archives import Archives
from aejax.data.pictures.upstream import read_idx
from aejax.errors import UserError
from aejax.optional import needs


def digits(name: str, manual_dir: Path | None = None, folder: Path | None = None) -> NamedDataset:
    """Returns scikit-learn's 1,797 digits, the test set of UCI's Optical Recognition of Digits."""
    features = needs("tensorflow_datasets", f"preparing {name}").features
    found = needs("sklearn.datasets", f"preparing {name}").load_digits()
    made = builder(
        name,
        "Handwritten digits of scikit-learn's load_digits, levels 0 to 16.",
        {"image": features.Image(shape=(8, 8, 1)), "label": features.ClassLabel(num_classes=10)},
        {"train": examples(found.images.astype(np.uint8), label=found.target)},
        scale=16,  # the stored value that becomes 1.0
    )
    return NamedDataset(made, lambda: "scikit-learn")


class Idx(NamedTuple):
    """A data set of 28x28 pictures in four files of MNIST's idx format."""

    counts: Mapping[str, int] = {"train": 60_000, "t10k": 10_000}
    # The time stamps in the headers of upstream's gzip files. With them, copies of the files whose
    # header was rewritten are recognised.
    times: Mapping[str, int] = {}

    def __call__(self, name: str, manual_dir: Path | None, folder: Path) -> NamedDataset:
        """Returns the data set, prepared by the builder of tfds from examples that aejax reads.

        Args:
          name: the name of the data set in tfds.
          manual_dir: a folder with the upstream files, or None to download them.
          folder: the folder for downloaded files.
        """
        tfds = needs("tensorflow_datasets", f"preparing {name}")
        stock = tfds.builder_cls(name)
        archives = Archives(manual_dir, folder, stock.url_infos)
        # All four files are read before anything is written, so that nothing is written if one of
        # them is damaged.
        splits = {
            "train": self._read(archives, stock.URL, "train"),
            "test": self._read(archives, stock.URL, "t10k"),
        }
        made = adapted(stock, lambda _: {split: enumerate(part) for split, part in splits.items()})
        files = [path.name for path in archives.used.values()]
        verified = archives.verified(
            {file: self.times.get(file.partition("-")[0]) for file in files}
        )
        return NamedDataset(made, lambda: _origin(manual_dir, verified))

    def _read(self, archives: Archives, url: str, part: str) -> Iterator[dict[str, Any]]:
        """Reads the examples of one part, "train" or "t10k"."""
        files = {"images": f"{part}-images-idx3-ubyte.gz", "labels": f"{part}-labels-idx1-ubyte.gz"}
        paths = archives.download({key: url + file for key, file in files.items()})
        images = read_idx(paths["images"], (self.counts[part], 28, 28))
        labels = read_idx(paths["labels"], (self.counts[part],))
        if labels.max() > 9:
            raise UserError(
                f"{paths['labels']} has a label {labels.max()}, but labels are 0 to 9: fetch the "
                "file again"
            )
        return examples(images, label=labels)


IDX = {
    "mnist": Idx(),
    "fashion_mnist": Idx(times={"train": 1504176606, "t10k": 1504176627}),
    "kmnist": Idx(),
}


def stock(name: str, manual_dir: Path | None, folder: Path, own: Iterable[str]) -> NamedDataset:
    """Returns an image data set of tensorflow-datasets, which its own builder prepares.

    Args:
      name: the name of the data set in tensorflow-datasets.
      manual_dir: a folder with the upstream files, or None to download them.
      folder: the folder for downloaded files.
      own: the names of aejax's own data sets, which the error message lists.

    Raises:
      UserError: if tensorflow-datasets has no such data set, or a file is missing or damaged.
    """
    tfds = needs("tensorflow_datasets", f"preparing {name}")
    try:
        found = tfds.builder_cls(name.partition("/")[0])
    except tfds.core.registered.DatasetNotFoundError:
        here = f"; write ./{name} for the folder of that name" if Path(name).is_dir() else ""
        raise UserError(
            f"unknown data set {name!r}: give one of {', '.join(own)}, the name of an image data "
            f"set of tensorflow-datasets, or the path of a folder of pictures{here}"
        ) from None
    archives = Archives(manual_dir, folder, found.url_infos)
    made = adapted(found, lambda self: found._split_generators(self, archives))
    return NamedDataset(made, lambda: _origin(manual_dir, archives.verified({})))


def _origin(manual_dir: Path | None, verified: bool) -> str:
    source = "downloaded" if manual_dir is None else "from --manual-dir"
    checked = "upstream checksums verified" if verified else "not upstream's, content hash recorded"
    return f"{source}, {checked}"
