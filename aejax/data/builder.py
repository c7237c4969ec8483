"""Builder classes of tensorflow-datasets (tfds) that work without TensorFlow.

builder("digits", "Handwritten digits.", {"image": ..., "label": ...}, {"train": examples})
adapted(stock, lambda self: {"train": self._generate_examples(path)})
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from aejax.optional import needs


class NamedDataset(NamedTuple):
    """The class of tensorflow-datasets that prepares a data set, and the origin of its files."""

    builder: type  # a tfds builder class
    # A function that returns where the files came from, which is known only after they were read.
    origin: Callable[[], str]


def builder(
    dataset: str,
    about: str,
    features: Mapping[str, Any],
    splits: Mapping[str, Iterable[Mapping[str, Any]]],
    **metadata: Any,
) -> type:
    """Returns a tfds builder class, version 1.0.0, for a data set that tfds does not have.

    Args:
      dataset: the name of the data set and of its folder.
      about: a description of one sentence.
      features: the tfds feature of each field of an example.
      splits: the examples of each split, which are read once and stored in the given order.
      **metadata: values that tfds records beside the features.

    Raises:
      UserError: if tensorflow-datasets is not installed.
    """
    tfds = needs("tensorflow_datasets", f"preparing {dataset}")

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # pyright: ignore
        VERSION = tfds.core.Version("1.0.0")
        name = dataset

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                description=about,
                features=tfds.features.FeaturesDict(dict(features)),
                disable_shuffling=True,
                metadata=tfds.core.MetadataDict(**metadata) if metadata else None,
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(part) for split, part in splits.items()}

        def _generate_examples(self, examples):
            yield from enumerate(examples)

    return Builder


def adapted(stock: Any, splits: Callable[[Any], Mapping[str, Any]]) -> type:
    """Returns a subclass of a tfds builder class that gets its examples from another function.

    Args:
      stock: a builder class of tfds; the subclass has its name and version.
      splits: a function that receives the builder and returns a mapping of split name -> its (key,
        example) pairs, in order.
    """

    class Adapted(stock, skip_registration=True):  # pyright: ignore
        name = stock.name
        pkg_dir_path = stock.pkg_dir_path

        def _split_generators(self, dl_manager):
            return splits(self)

    return Adapted


def examples(images: np.ndarray, **labels: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yields examples whose pictures are PIL images, since tfds encodes arrays with TensorFlow.

    Args:
      images: the pictures, u8[N, H, W].
      **labels: field name -> an integer for each picture, [N].
    """
    image = needs("PIL.Image", "preparing pictures")
    for pixels, *values in zip(images, *labels.values(), strict=True):
        yield {"image": image.fromarray(pixels), **dict(zip(labels, map(int, values), strict=True))}
