"""Builders of tensorflow-datasets that need no TensorFlow: of our own data sets and of stock ones.

builder("digits", "Handwritten digits.", {"image": ..., "label": ...}, {"train": examples})
adapted(stock, lambda self: {"train": self._generate_examples(path)})
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from aejax.optional import needs


class Recipe(NamedTuple):
    """How one data set is made."""

    builder: type  # a tfds builder class
    origin: Callable[[], str]  # where the files came from; known once they are read


def builder(
    dataset: str,
    about: str,
    features: Mapping[str, Any],
    splits: Mapping[str, Iterable[Mapping[str, Any]]],
    **metadata: Any,
) -> type:
    """A builder class of a data set that tensorflow-datasets does not have; its version is 1.0.0.

    Args:
      dataset: its name, and that of its folder.
      about: one sentence.
      features: a tfds feature for each part of an example.
      splits: the examples of each split, which are read once and kept in their order.
      **metadata: what is recorded beside the features.
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
    """A stock builder class whose examples are read in another way; name and version stay.

    Args:
      stock: a builder class of tensorflow-datasets.
      splits: builder -> for each split (key, example) in order.
    """

    class Adapted(stock, skip_registration=True):  # pyright: ignore
        name = stock.name
        pkg_dir_path = stock.pkg_dir_path

        def _split_generators(self, dl_manager):
            return splits(self)

    return Adapted


def examples(images: np.ndarray, **labels: np.ndarray) -> Iterator[dict[str, Any]]:
    """Examples with pictures of PIL, since tfds encodes arrays by TensorFlow.

    Args:
      images: u8[N, H, W].
      **labels: whole numbers [N] that belong to the pictures.
    """
    image = needs("PIL.Image", "preparing pictures")
    for pixels, *values in zip(images, *labels.values(), strict=True):
        yield {"image": image.fromarray(pixels), **dict(zip(labels, map(int, values), strict=True))}
