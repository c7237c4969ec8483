"""The bottlenecks of sparse autoencoders: many latents, of which few are active for one example.

The module `code` defines their output, `memory` their state, `plain` the format to which they
convert their weights, `revived` the code of AuxK, and `base` the class from which they derive. Each
other module defines the sparse bottlenecks of one family.
"""

from aejax.bottlenecks.sparse.base import Sparse
from aejax.bottlenecks.sparse.batchtopk import BatchTopK
from aejax.bottlenecks.sparse.code import Rows, SparseCode
from aejax.bottlenecks.sparse.gated import Gated
from aejax.bottlenecks.sparse.jumprelu import JumpReLU
from aejax.bottlenecks.sparse.pursuit import MatchingPursuit
from aejax.bottlenecks.sparse.relu import AnnealedReLU, ReLU
from aejax.bottlenecks.sparse.topk import AbsTopK, TopK

__all__ = [
    "AbsTopK",
    "AnnealedReLU",
    "BatchTopK",
    "Gated",
    "JumpReLU",
    "MatchingPursuit",
    "ReLU",
    "Rows",
    "Sparse",
    "SparseCode",
    "TopK",
]
