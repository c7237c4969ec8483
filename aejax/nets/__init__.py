"""Encoders and decoders: Linen modules called with (values, context) -> values."""

from aejax.nets.conv import Conv, Deconv
from aejax.nets.linear import Dictionary, Identity
from aejax.nets.mlp import MLP
from aejax.nets.scale import Scale

__all__ = ["MLP", "Conv", "Deconv", "Dictionary", "Identity", "Scale"]
