"""Sparse dictionaries: recipes, objectives, and plain weights, folding, editing, resampling."""

from aejax.dictionaries.editing import frequency, merged, ordered, pruned, recalibrated, taken
from aejax.dictionaries.folding import fold, unfold
from aejax.dictionaries.plain import (
    Plain,
    decode,
    encode,
    fold_decoder_norms,
    kind_of,
    reconstruct,
)

__all__ = [
    "Plain",
    "decode",
    "encode",
    "fold",
    "fold_decoder_norms",
    "frequency",
    "kind_of",
    "merged",
    "ordered",
    "pruned",
    "recalibrated",
    "reconstruct",
    "taken",
    "unfold",
]
