"""Data sets of pictures, prepared by builders of tensorflow-datasets (tfds) or read from a folder.

Data sets that aejax itself defines are listed in `NAMED`: name -> a function of (name, manual_dir,
folder) that returns a NamedDataset. All other names are those of tensorflow-datasets.
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
