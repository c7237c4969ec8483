"""Data sets of pictures, prepared by builders of tensorflow-datasets or read from a folder.

Each data set of aejax's own has a function (name, manual_dir, folder) -> NamedDataset, which
`NAMED` lists. All other names are those of tensorflow-datasets.
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
