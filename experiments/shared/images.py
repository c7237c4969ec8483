"""The data of experiments on images."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

import aejax as ae
from aejax.data import Split
from experiments.shared.experiment import Splits
from experiments.shared.place import Place

Data = Callable[[Any, Place], Splits]


def image_data(
    dataset: str | None = None,
    binarise: Literal["dynamic", "static", "none"] | None = "dynamic",
    validation: int | None = None,
) -> Data:
    """Returns a function (config, place) -> train, validation and test images.

    The function can be the field `data` of an `Experiment`.

    Args:
      dataset: the name of the data set; None: the field `dataset` of the config.
      binarise: as in `ae.data.images`; None: the field `binarise` of the config.
      validation: the number of train examples that become the validation split; None: the default
        of `ae.data.images`.
    """

    def data(config: Any, place: Place) -> Splits:
        return ae.data.images(
            config.dataset if dataset is None else dataset,
            binarise=config.binarise if binarise is None else binarise,
            data_dir=place.data_dir,
            manual_dir=place.manual_dir,
            validation=validation,
            prepared_only=place.prepared_only,
        )

    return data


def labelled(data: Data) -> Data:
    """Returns `data`, changed so that data sets without labels from 0 to 9 raise a UserError."""

    def checked(config: Any, place: Place) -> Splits:
        splits = data(config, place)
        labels, name = splits[0].labels, splits[0].name.rpartition("/")[0]
        if labels is None or labels.max() > 9:
            raise ae.UserError(
                f"{name} does not have labels from 0 to 9, which the classifier needs: choose a "
                "--dataset that has them, such as mnist"
            )
        return splits

    return checked


def thresholded(dataset: str, place: Place, train: int, tested: int) -> Splits:
    """Returns splits of labelled images of 28x28 pixels that are 0 or 1, thresholded at 1/2.

    Args:
      dataset: the name of the data set.
      place: the folders of the data.
      train: the number of train images.
      tested: the number of test images; validation has 1,000.

    Raises:
      UserError: if the images have no labels or another shape.
    """
    splits = ae.data.images(
        dataset,
        binarise="none",
        data_dir=place.data_dir,
        manual_dir=place.manual_dir,
        prepared_only=place.prepared_only,
    )
    if splits[0].event != (28, 28, 1) or splits[0].labels is None:
        raise ae.UserError(
            f"labelled images of 28x28x1 are needed, not {splits[0].event}: change --dataset"
        )

    def part(split: Split, count: int) -> tuple[np.ndarray, np.ndarray]:
        images = np.asarray(split.arrays["image"][:count])
        return (images > 127).astype(np.float32), np.asarray(split.labels)[:count]

    counts = (train, 1_000, tested)
    parts = [part(split, count) for split, count in zip(splits, counts, strict=True)]
    return ae.data.splits(*parts)


@functools.lru_cache(maxsize=4)
def pictures(split: Split) -> np.ndarray:
    """Returns all targets of a split, f32[N, *event]."""
    return np.concatenate([np.asarray(batch.target) for batch in split.batches(4096)])
