"""Activations of another model, stored in a folder on the disk that may be larger than memory."""

from aejax.data.activations.batches import TokenBatches
from aejax.data.activations.filter import TokenFilter
from aejax.data.activations.store import Activations, activations
from aejax.data.activations.writer import ActivationWriter

__all__ = ["ActivationWriter", "Activations", "TokenBatches", "TokenFilter", "activations"]
