"""Sparse dictionaries: training recipes, objectives, resampling, plain weights and their edits."""

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
