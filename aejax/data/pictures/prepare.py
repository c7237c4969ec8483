"""Preparing a data set into the data folder: whole or not at all, by one process at a time."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from aejax.data.builder import Recipe
from aejax.data.data_dir import alone, newest, quiet
from aejax.data.pictures import NAMED, builders
from aejax.data.pictures.store import FILE, Prepared, load, save
from aejax.data.pictures.tfds_reader import contents
from aejax.errors import UserError
from aejax.optional import needs


def prepare(name: str, data_dir: Path, manual_dir: Path | None) -> Prepared:
    """Prepares a data set, as array_record and as the .npz that `store.load` reads.

    Args:
      name: one of `aejax.data.pictures.NAMED`, or an image data set of tensorflow-datasets.
      data_dir: made where it does not exist.
      manual_dir: a folder with the upstream files, or None to download them.

    Returns:
      The data set.

    Raises:
      UserError: unknown name, files missing or damaged, data_dir not writable, a package missing.
    """
    stock = newest(data_dir, name, "dataset_info.json")
    if stock is not None:
        return _adopted(name, stock.parent)
    with alone(data_dir) as workshop:
        found = newest(data_dir, name, FILE)
        if found is not None:  # another process prepared it while this one waited
            return load(found)
        downloads = workshop / "downloads"
        if name in NAMED:
            made = NAMED[name](name, manual_dir, downloads)
        else:
            made = builders.stock(name, manual_dir, downloads, NAMED)
        print(f"preparing {name} in {data_dir}, once", file=sys.stderr)
        with quiet():
            builder = _built(name, made, workshop)
            prepared = contents(name, builder, made.origin())
        folder = Path(builder.data_dir)
        save(folder / FILE, prepared)
        target = data_dir / folder.relative_to(workshop)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
    found = newest(data_dir, name, FILE)
    return prepared if prepared.reader is None or found is None else load(found)


def _adopted(name: str, folder: Path) -> Prepared:
    """A data set that tensorflow-datasets itself has prepared; kept as .npz too where it may be."""
    tfds = needs("tensorflow_datasets", f"reading {name}, which is prepared as array_record only,")
    with quiet():
        builder = tfds.builder_from_directory(str(folder))
        prepared = contents(name, builder, "prepared by tensorflow-datasets")
    if os.access(folder, os.W_OK):
        save(folder / FILE, prepared)
    return prepared


def _built(name: str, made: Recipe, workshop: Path) -> Any:
    """The tfds builder, prepared inside the workshop."""
    config = {"config": name.partition("/")[2]} if "/" in name else {}
    try:
        builder = made.builder(data_dir=str(workshop), file_format="array_record", **config)
        if "image" not in builder.info.features:
            raise UserError(f"{name} is no data set of pictures: it has no feature 'image'")
        builder.download_and_prepare()
    except ImportError as error:
        package = error.name or "tensorflow"
        raise UserError(
            f"preparing {name} needs {package}: pip install {package} and start again "
            "(reading it afterwards does not need it)"
        ) from error
    except (UserError, OSError):
        raise
    except Exception as error:  # a stock builder on files that it does not know: anything
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{name} could not be prepared ({type(error).__name__}: {reason}): "
            "are these the upstream files?"
        ) from error
    return builder
