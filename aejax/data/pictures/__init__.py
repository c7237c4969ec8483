"""Data sets of pictures: prepared through tensorflow-datasets builders, or read from a folder.

A data set with a name is one file with a function `(name, manual_dir, folder) -> Recipe`, and its
line in `NAMED`. Any other name is one of tensorflow-datasets' own, which needs no line here.
"""

from aejax.data.pictures import builders, faces, sprites

NAMED = {
    "digits": builders.digits,
    **builders.IDX,
    "frey_faces": faces.frey_faces,
    "lfw_subset": faces.lfw_subset,
    **dict.fromkeys(sprites.GRIDS, sprites.recipe),
}

__all__ = ["NAMED"]
