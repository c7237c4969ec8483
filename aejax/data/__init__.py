"""Data sets, their division into splits, and the batch of each training step."""

from aejax.data import activations, changes
from aejax.data.arrays import arrays, context, rows, splits
from aejax.data.batches import Batches
from aejax.data.changes import changed
from aejax.data.pictures.images import images
from aejax.data.pictures.inspection import inspection
from aejax.data.sound.sounds import sounds
from aejax.data.sources import source
from aejax.data.split import Split, check_support
from aejax.data.statistics import statistics
from aejax.data.stream import Stream
from aejax.data.table import table
from aejax.data.text.pairs import pairs
from aejax.data.text.texts import texts
from aejax.data.text.tokens import tokens

__all__ = [
    "Batches",
    "Split",
    "Stream",
    "activations",
    "arrays",
    "changed",
    "changes",
    "check_support",
    "context",
    "images",
    "inspection",
    "pairs",
    "rows",
    "sounds",
    "source",
    "splits",
    "statistics",
    "table",
    "texts",
    "tokens",
]
