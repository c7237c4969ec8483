"""Bottlenecks: features -> Code, and what it costs; in nothing else do autoencoders differ.

A bottleneck is a Linen module called with (features, key, step, context, prior, decoder): a
ladder posterior reads the prior, a sparse one may read the atoms. Its `shape` is that of one
example's latent (a pytree of shapes for a hierarchy), and `lift(latent, context, prior)` turns what
the prior draws into what the decoder sees. It behaves as in training if and only if the collection
"memory" is writable; a key of None means no noise.

A Code is a NamedTuple with `z`, all that the decoder sees, and `latent`, what the prior gives a
probability to (z itself but for quantised codes). A random code has `log_q(stick=False) -> f32[B]`;
one whose distribution is a diagonal Gaussian, and no other, has the fields `mean` and `log_std`.
One whose density is known at any latent may say so by `log_prob(values f32[N, L]) -> f32[N, B]` and
`redraw(key) -> f32[B, L]`.
"""

from aejax.bottlenecks.covariance import FullGaussian, FullGaussianCode
from aejax.bottlenecks.flow import FlowCode
from aejax.bottlenecks.flow_autoregressive import InverseAutoregressive
from aejax.bottlenecks.flow_planar import Planar
from aejax.bottlenecks.flow_sylvester import Sylvester
from aejax.bottlenecks.gaussian import Gaussian, GaussianCode
from aejax.bottlenecks.lattice import FiniteScalarQuantised, LatticeCode
from aejax.bottlenecks.levels import Levels, LevelsCode, UpwardCode, UpwardLevels
from aejax.bottlenecks.point import Point, PointCode
from aejax.bottlenecks.sparse import (
    AbsTopK,
    AnnealedReLU,
    BatchTopK,
    Gated,
    JumpReLU,
    ReLU,
    Rows,
    Sparse,
    SparseCode,
    TopK,
)
from aejax.bottlenecks.vector import VectorCode, VectorQuantised

__all__ = [
    "AbsTopK",
    "AnnealedReLU",
    "BatchTopK",
    "FiniteScalarQuantised",
    "FlowCode",
    "FullGaussian",
    "FullGaussianCode",
    "Gated",
    "Gaussian",
    "GaussianCode",
    "InverseAutoregressive",
    "JumpReLU",
    "LatticeCode",
    "Levels",
    "LevelsCode",
    "Planar",
    "Point",
    "PointCode",
    "ReLU",
    "Rows",
    "Sparse",
    "SparseCode",
    "Sylvester",
    "TopK",
    "UpwardCode",
    "UpwardLevels",
    "VectorCode",
    "VectorQuantised",
]
