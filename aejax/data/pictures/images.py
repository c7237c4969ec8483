"""Loads a named data set or a folder of pictures as train, validation and test splits."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from aejax.data.data_dir import check_prepared, check_trusted, default_data_dir, newest
from aejax.data.pictures.store import FILE, Prepared, read_prepared
from aejax.data.splitting import Binarise, Splits, divide, splits
from aejax.errors import UserError
from aejax.files import check_name


def images(
    name_or_folder: str | os.PathLike,
    *,
    binarise: Binarise = "dynamic",
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
    validation: float | None = None,
    seed: int = 0,
    prepared_only: bool = False,
) -> Splits:
    """Loads a data set of pictures, divided into train, validation and test splits.

    "digits" (scikit-learn's 1,797 digits of 8x8 pixels) and "sprites" need no network. "mnist",
    "fashion_mnist" and "kmnist" are downloaded, or read from `manual_dir`. Other names are those
    of tensorflow-datasets. A path is a folder of pictures whose subfolders are the classes.

    Args:
      name_or_folder: the name of a data set, or a folder.
      binarise: "dynamic": the pixels of the train split are drawn from a Bernoulli anew at every
        step, and those of validation and test once with a fixed seed; "static": the pixels of all
        three splits are drawn once; "none": the pixels keep their grey values.
      data_dir: the folder of prepared data sets; by default that of tensorflow-datasets.
      manual_dir: a folder with the upstream files; if it is given, nothing is downloaded.
      validation: the share (below 1) or the number of train examples that become the validation
        split. By default the data set's own validation split is used. If it has none, the
        validation split has as many train examples as the test split has, but at most a fifth of
        all; if there is no test split either, it has a tenth.
      seed: the seed of the random division into splits.
      prepared_only: whether to refuse a path, and a data set that data_dir does not hold yet, as
        for a name that somebody else chose.

    Returns:
      Three splits with arrays `image` u8[N, H, W, C] and, if there are classes, `label` i32[N].

    Raises:
      UserError: if the name is unknown, if files are missing or damaged, if data_dir cannot be
        written, or if pictures differ in size.
    """
    prepared = _prepared(name_or_folder, data_dir, manual_dir, prepared_only)
    parts = _three(prepared, validation, seed)
    return splits(
        prepared.name,
        parts,
        field="image",
        scale=prepared.scale,
        binarise=binarise,
        classes=prepared.classes,
        origin=prepared.origin,
        reader=prepared.reader,
        content=prepared.content,
    )


def _prepared(
    name_or_folder: str | os.PathLike,
    data_dir: str | os.PathLike | None,
    manual_dir: str | os.PathLike | None,
    prepared_only: bool,
) -> Prepared:
    """Reads a data set or a folder of pictures; a data set is prepared first if necessary."""
    name, folder = str(name_or_folder), Path(name_or_folder).expanduser()
    path = isinstance(name_or_folder, Path) or os.sep in name or name.startswith(".")
    if path:
        check_trusted(name, prepared_only)
        from aejax.data.pictures.folder import read_folder

        return read_folder(folder)
    check_name(name, "the name of a data set")
    root = Path(data_dir).expanduser() if data_dir is not None else default_data_dir()
    found = newest(root, name, FILE)
    if found is not None:
        return read_prepared(found)
    check_prepared(name, root, prepared_only)
    from aejax.data.pictures.prepare import prepare

    return prepare(name, root, Path(manual_dir).expanduser() if manual_dir is not None else None)


def _three(prepared: Prepared, validation: float | None, seed: int) -> list[dict[str, np.ndarray]]:
    """Returns the columns of train, validation and test.

    Examples of train become the validation or test split if the data set has no such split.
    """
    columns = prepared.columns
    if "train" not in columns and len(columns) > 1:
        raise UserError(
            f"{prepared.name} has no train split, only {', '.join(columns)}: give another one"
        )
    train = columns.get("train") or next(iter(columns.values()))
    if "test" not in columns:
        tenth = 0.1 if validation is None else validation
        return divide(train, prepared.name, shares={"validation": tenth, "test": 0.1}, seed=seed)
    if "validation" in columns and validation is None:
        return [train, columns["validation"], columns["test"]]
    examples, held = (len(next(iter(part.values()))) for part in (train, columns["test"]))
    share = min(held, examples // 5) if validation is None else validation
    kept, taken = divide(train, prepared.name, shares={"validation": share}, seed=seed)
    return [kept, taken, columns["test"]]
