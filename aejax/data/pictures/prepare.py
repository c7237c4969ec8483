"""Prepares a data set of pictures: writes it to the data folder, completely or not at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from aejax.data.builder import NamedDataset
from aejax.data.data_dir import locked_workspace, newest, quiet_tfds
from aejax.data.pictures import NAMED, builders
from aejax.data.pictures.store import FILE, Prepared, read_prepared, write_prepared
from aejax.data.pictures.tfds_reader import contents
from aejax.data.reading import open_builder
from aejax.errors import UserError


def prepare(name: str, data_dir: Path, manual_dir: Path | None) -> Prepared:
    """Writes a data set to data_dir, in tfds' format array_record and as .npz, and returns it.

    Args:
      name: a name in `aejax.data.pictures.NAMED`, or an image data set of tensorflow-datasets.
      data_dir: the folder of prepared data sets; it is created if it does not exist.
      manual_dir: a folder with the upstream files, or None to download them.

    Returns:
      The data set.

    Raises:
      UserError: if the name is unknown, if files are missing or damaged, if data_dir cannot be
        written, or if a package is missing.
    """
    stock = newest(data_dir, name, "dataset_info.json")
    if stock is not None:
        return _adopted(name, stock.parent)
    with locked_workspace(data_dir) as workspace:
        found = newest(data_dir, name, FILE)
        if found is not None:  # another process prepared it while this one waited for the lock
            return read_prepared(found)
        downloads = workspace / "downloads"
        if name in NAMED:
            made = NAMED[name](name, manual_dir, downloads)
        else:
            made = builders.stock(name, manual_dir, downloads, NAMED)
        print(f"preparing {name} in {data_dir}, once", file=sys.stderr)
        with quiet_tfds():
            builder = _built(name, made, workspace)
            prepared = contents(name, builder, made.origin())
        folder = Path(builder.data_dir)
        write_prepared(folder / FILE, prepared)
        target = data_dir / folder.relative_to(workspace)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
    found = newest(data_dir, name, FILE)
    return prepared if prepared.reader is None or found is None else read_prepared(found)


def _adopted(name: str, folder: Path) -> Prepared:
    """Reads a data set that tfds itself has prepared, and if possible writes its .npz."""
    with quiet_tfds():
        purpose = f"reading {name}, which is prepared as array_record only,"
        builder = open_builder(folder, purpose)
        prepared = contents(name, builder, "prepared by tensorflow-datasets")
    if os.access(folder, os.W_OK):
        write_prepared(folder / FILE, prepared)
    return prepared


def _built(name: str, made: NamedDataset, workspace: Path) -> Any:
    """Prepares a data set inside the folder `workspace`, and returns the tfds builder of it.

    Raises:
      UserError: if it is not a data set of pictures or could not be prepared, or if a package is
        missing.
    """
    config = {"config": name.partition("/")[2]} if "/" in name else {}
    try:
        builder = made.builder(data_dir=str(workspace), file_format="array_record", **config)
        if "image" not in builder.info.features:
            raise UserError(
                f"{name} is not a data set of pictures, since it has no feature 'image': give "
                "another name"
            )
        builder.download_and_prepare()
    except ImportError as error:
        package = error.name or "tensorflow"
        raise UserError(
            f"preparing {name} needs the package {package}: pip install {package} and start again "
            "(reading the prepared data set will not need it)"
        ) from error
    except (UserError, OSError):
        raise
    except Exception as error:  # a tfds builder raises errors of many types for unknown files
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{name} could not be prepared ({type(error).__name__}: {reason}): "
            "check that the files are the original ones"
        ) from error
    return builder
