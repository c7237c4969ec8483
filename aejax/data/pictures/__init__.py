"""Data sets of pictures, prepared by builders of tensorflow-datasets or read from a folder.

A data set with a name has a function `(name, manual_dir, folder) -> NamedDataset` in one file, and
an entry in `NAMED`. All other names are those of tensorflow-datasets, which need no entry.
"""

from aejax.data.pictures import builders, faces, sprites

NAMED = {
    "digits": builders.digits,
    **builders.IDX,
    "frey_faces": faces.frey_faces,
    "lfw_subset": faces.lfw_subset,
    **dict.fromkeys(sprites.GRIDS, sprites.named_dataset),
}

__all__ = ["NAMED"]
