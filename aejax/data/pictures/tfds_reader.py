"""Reads the data set of a prepared tfds builder.

A small data set is read into memory, and a large one is read from the disk example by example.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from aejax.data.pictures.store import Prepared
from aejax.data.reading import Chained
from aejax.data.split import FACTOR, fingerprint
from aejax.errors import UserError

# A data set with more bytes of pictures than this is read from the disk example by example.
MEMORY_LIMIT = 4 * 2**30
BLOCK = 1024  # the number of examples that are read together


def contents(name: str, builder: Any, origin: str) -> Prepared:
    """Reads the data set of a tfds builder, in one pass over its examples.

    Args:
      name: the name of the data set.
      builder: a tfds builder whose data set was prepared in a format with random access.
      origin: where the files came from.

    Returns:
      The data set. If it does not fit in memory, its columns hold `row` i32[N] instead of `image`.
      Known factors of variation, such as the features label_* of dsprites, are columns i32[N].

    Raises:
      UserError: if there are no pictures, if pictures differ in size, or if the format has no
        random access.
    """
    sources = _sources(name, builder)
    features = builder.info.features
    named = [key for key in features if hasattr(features[key], "names")]
    labels = [key for key in named if key == "label" or key.startswith(FACTOR)]
    first = next(iter(sources.values()))[0]["image"]
    large = sum(map(len, sources.values())) * first.nbytes > MEMORY_LIMIT
    columns, digest, start = {}, hashlib.sha256(), 0
    for split, source in sources.items():
        kept = {}
        if large:
            kept["row"] = np.arange(start, start + len(source), dtype=np.int32)
        else:
            kept["image"] = np.empty((len(source), *first.shape), first.dtype)
        kept |= {key: np.empty(len(source), np.int32) for key in labels}
        for i, example in enumerate(_examples(source)):
            image = example["image"]
            if image.shape != first.shape:
                raise UserError(
                    f"{name} has pictures of different sizes, {first.shape} and {image.shape}: "
                    "resize them to one size and give them as a folder of pictures"
                )
            if large:
                digest.update(fingerprint({"image": image}).encode())
            else:
                kept["image"][i] = image
            for key in labels:
                kept[key][i] = example[key]
        columns[split], start = kept, start + len(source)
    return Prepared(
        name=name,
        columns=columns,
        scale=float((builder.info.metadata or {}).get("scale", np.iinfo(first.dtype).max)),
        classes=tuple(features["label"].names) if "label" in labels else (),
        origin=origin,
        reader=Chained(list(sources.values())) if large else None,
        content=digest.hexdigest() if large else None,
    )


def _sources(name: str, builder: Any) -> dict[str, Any]:
    """Returns split name -> the tfds data source, which reads examples, of splits with examples.

    Raises:
      UserError: if no split has examples, they have no pictures, or the format has no random
        access.
    """
    try:
        sources = builder.as_data_source()
    except NotImplementedError as error:
        raise UserError(
            f"{builder.data_dir} holds {name} in a format without random access: "
            "give another folder by --data-dir, and it will be prepared there as array_record"
        ) from error
    sources = {str(split): source for split, source in sources.items() if len(source)}
    if not sources:
        raise UserError(
            f"{builder.data_dir} holds no examples of {name}: delete this folder and start again"
        )
    if "image" not in builder.info.features:
        raise UserError(
            f"{name} is not a data set of pictures, since it has no feature 'image': give another "
            "name"
        )
    return sources


def _examples(source: Any) -> Iterator[Mapping[str, Any]]:
    """Yields all examples in order; it reads them in blocks, which is faster than one by one."""
    for start in range(0, len(source), BLOCK):
        yield from source.__getitems__(list(range(start, min(start + BLOCK, len(source)))))
