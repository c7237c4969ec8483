"""The bottlenecks of sparse autoencoders: many latents, few of them active for one example.

`code` and `memory` hold what they give and remember, `plain` the record of their weights, `base`
what they share; each other file holds the activations of one family, one class each.
"""

from aejax.bottlenecks.sparse.base import Sparse
from aejax.bottlenecks.sparse.batchtopk import BatchTopK
from aejax.bottlenecks.sparse.code import Rows, SparseCode
from aejax.bottlenecks.sparse.gated import Gated
from aejax.bottlenecks.sparse.jumprelu import JumpReLU
from aejax.bottlenecks.sparse.relu import AnnealedReLU, ReLU
from aejax.bottlenecks.sparse.topk import AbsTopK, TopK

__all__ = [
    "AbsTopK",
    "AnnealedReLU",
    "BatchTopK",
    "Gated",
    "JumpReLU",
    "ReLU",
    "Rows",
    "Sparse",
    "SparseCode",
    "TopK",
]
