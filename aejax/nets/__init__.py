"""Encoders and decoders: Linen modules that map (values, context) to values."""

from aejax.nets.call import training
from aejax.nets.causal import CausalGRU, CausalTransformer
from aejax.nets.conv import Conv, Deconv
from aejax.nets.convolution import Convolution, TransposedConvolution
from aejax.nets.gated import GatedConv, GatedImage
from aejax.nets.join import Branches, Joined, OfContext
from aejax.nets.ladder import LadderEncoder, LadderHead, LadderOutput, LadderTrunk, ladder
from aejax.nets.linear import Dictionary, Identity
from aejax.nets.mlp import MLP, LayerNormed
from aejax.nets.normalise import Normalise
from aejax.nets.patches import PatchDecoder, PatchEncoder
from aejax.nets.recurrent import GRU, GRUDecoder
from aejax.nets.resnet import ResNet
from aejax.nets.scale import Scale
from aejax.nets.shares import Shares
from aejax.nets.spatial import PatchCritic, Pyramid, SpatialDecoder, SpatialEncoder
from aejax.nets.spelling import Spelling
from aejax.nets.standardised import Standardised
from aejax.nets.strided import Strided, Transposed
from aejax.nets.tokens import TokenGRU, TokenTransformer
from aejax.nets.unet import UDecoder
from aejax.nets.views import Views
from aejax.nets.wave import WaveDecoder, WaveEncoder

__all__ = [
    "GRU",
    "MLP",
    "Branches",
    "CausalGRU",
    "CausalTransformer",
    "Conv",
    "Convolution",
    "Deconv",
    "Dictionary",
    "GRUDecoder",
    "GatedConv",
    "GatedImage",
    "Identity",
    "Joined",
    "LadderEncoder",
    "LadderHead",
    "LadderOutput",
    "LadderTrunk",
    "LayerNormed",
    "Normalise",
    "OfContext",
    "PatchCritic",
    "PatchDecoder",
    "PatchEncoder",
    "Pyramid",
    "ResNet",
    "Scale",
    "Shares",
    "SpatialDecoder",
    "SpatialEncoder",
    "Spelling",
    "Standardised",
    "Strided",
    "TokenGRU",
    "TokenTransformer",
    "Transposed",
    "TransposedConvolution",
    "UDecoder",
    "Views",
    "WaveDecoder",
    "WaveEncoder",
    "ladder",
    "training",
]
