"""The data of experiments on pictures."""

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
    """The `data` of an experiment: train, validation and test of a data set of pictures.

    Args:
      dataset: its name; where None, the config's field `dataset`.
      binarise: as in `ae.data.images`; where None, the config's field `binarise`.
      validation: how many of the train examples are held out; where None, as `ae.data.images` says.
    """

    def data(config: Any, place: Place) -> Splits:
        return ae.data.images(
            config.dataset if dataset is None else dataset,
            binarise=config.binarise if binarise is None else binarise,
            data_dir=place.data_dir,
            manual_dir=place.manual_dir,
            validation=validation,
        )

    return data


def labelled(data: Data) -> Data:
    """The same data, refused before anything is trained where a classifier of ten cannot learn."""

    def checked(config: Any, place: Place) -> Splits:
        splits = data(config, place)
        labels, name = splits[0].labels, splits[0].name.rpartition("/")[0]
        if labels is None or labels.max() > 9:
            raise ae.UserError(f"{name} has no ten labels: choose a --dataset that has")
        return splits

    return checked


@functools.lru_cache(maxsize=4)
def pictures(split: Split) -> np.ndarray:
    """All targets of a split, f32[N, *event]."""
    return np.concatenate([np.asarray(batch.target) for batch in split.batches(4096)])
