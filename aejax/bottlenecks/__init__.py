"""Bottlenecks: modules that turn the encoder's features into a code.

A code holds the latent z that the decoder decodes and what the loss needs, such as the parameters
of the posterior. `aejax.contracts` defines which attributes and methods a bottleneck (`Bottleneck`)
and a code (`Code`) must have.
"""

from aejax.bottlenecks.covariance import FullGaussian, FullGaussianCode
from aejax.bottlenecks.experts import ExpertsCode, MixtureOfExperts, ProductOfExperts
from aejax.bottlenecks.flow import FlowCode
from aejax.bottlenecks.flow_autoregressive import InverseAutoregressive
from aejax.bottlenecks.flow_planar import Planar
from aejax.bottlenecks.flow_sylvester import Sylvester
from aejax.bottlenecks.gaussian import Gaussian, GaussianCode
from aejax.bottlenecks.gumbel import ClassCode, GumbelSoftmax
from aejax.bottlenecks.hamiltonian import Hamiltonian, HamiltonianCode
from aejax.bottlenecks.lattice import FiniteScalarQuantised, LatticeCode
from aejax.bottlenecks.levels import Levels, LevelsCode, UpwardCode, UpwardLevels
from aejax.bottlenecks.normalised import NormalisedGaussian
from aejax.bottlenecks.point import Point, PointCode
from aejax.bottlenecks.residual import ResidualQuantised
from aejax.bottlenecks.sparse import (
    AbsTopK,
    AnnealedReLU,
    BatchTopK,
    Gated,
    JumpReLU,
    MatchingPursuit,
    ReLU,
    Rows,
    Sparse,
    SparseCode,
    TopK,
)
from aejax.bottlenecks.spatial import SpatialCode, SpatialGaussian
from aejax.bottlenecks.sphere import SphereCode, VonMisesFisher
from aejax.bottlenecks.vector import VectorCode, VectorQuantised

__all__ = [
    "AbsTopK",
    "AnnealedReLU",
    "BatchTopK",
    "ClassCode",
    "ExpertsCode",
    "FiniteScalarQuantised",
    "FlowCode",
    "FullGaussian",
    "FullGaussianCode",
    "Gated",
    "Gaussian",
    "GaussianCode",
    "GumbelSoftmax",
    "Hamiltonian",
    "HamiltonianCode",
    "InverseAutoregressive",
    "JumpReLU",
    "LatticeCode",
    "Levels",
    "LevelsCode",
    "MatchingPursuit",
    "MixtureOfExperts",
    "NormalisedGaussian",
    "Planar",
    "Point",
    "PointCode",
    "ProductOfExperts",
    "ReLU",
    "ResidualQuantised",
    "Rows",
    "Sparse",
    "SparseCode",
    "SpatialCode",
    "SpatialGaussian",
    "SphereCode",
    "Sylvester",
    "TopK",
    "UpwardCode",
    "UpwardLevels",
    "VectorCode",
    "VectorQuantised",
    "VonMisesFisher",
]
