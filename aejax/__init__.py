"""aejax: autoencoders of all kinds as pure functions in JAX and Flax, trained by one function."""

from aejax import (
    bounds,
    contracts,
    data,
    evaluation,
    interop,
    likelihoods,
    losses,
    nets,
    priors,
    sound,
)
from aejax import dictionaries as dictionary
from aejax.bottlenecks import (
    AbsTopK,
    AnnealedReLU,
    BatchTopK,
    FiniteScalarQuantised,
    FullGaussian,
    Gated,
    Gaussian,
    GumbelSoftmax,
    Hamiltonian,
    InverseAutoregressive,
    JumpReLU,
    Levels,
    MatchingPursuit,
    MixtureOfExperts,
    NormalisedGaussian,
    Planar,
    Point,
    ProductOfExperts,
    ReLU,
    ResidualQuantised,
    SpatialGaussian,
    Sylvester,
    TopK,
    UpwardLevels,
    VectorQuantised,
    VonMisesFisher,
)
from aejax.dictionaries import objectives, recipes
from aejax.dictionaries.folding import fold, unfold
from aejax.dictionaries.resampling import resampled
from aejax.dictionaries.window import check_window
from aejax.errors import UserError
from aejax.model import Autoencoder
from aejax.objective import elbo, merge, reconstruction, sparse, total, watch
from aejax.runs.load import load
from aejax.runs.run import Run
from aejax.training import initialise, samplers
from aejax.training.aggressive import aggressive
from aejax.training.compiled import compiled, dictionary_rules, mesh
from aejax.training.initialise import standardised, tied
from aejax.training.learner import learner
from aejax.training.loop import NonFinite, loop
from aejax.training.stopping import Patience
from aejax.training.wrappers import averaged, chunked, restarted, seeds, swept
from aejax.types import Batch, Bound, Forward, Learner, Objective, Source, State, Term

__all__ = [
    "AbsTopK",
    "AnnealedReLU",
    "Autoencoder",
    "Batch",
    "BatchTopK",
    "Bound",
    "FiniteScalarQuantised",
    "Forward",
    "FullGaussian",
    "Gated",
    "Gaussian",
    "GumbelSoftmax",
    "Hamiltonian",
    "InverseAutoregressive",
    "JumpReLU",
    "Learner",
    "Levels",
    "MatchingPursuit",
    "MixtureOfExperts",
    "NonFinite",
    "NormalisedGaussian",
    "Objective",
    "Patience",
    "Planar",
    "Point",
    "ProductOfExperts",
    "ReLU",
    "ResidualQuantised",
    "Run",
    "Source",
    "SpatialGaussian",
    "State",
    "Sylvester",
    "Term",
    "TopK",
    "UpwardLevels",
    "UserError",
    "VectorQuantised",
    "VonMisesFisher",
    "aggressive",
    "averaged",
    "bounds",
    "check_window",
    "chunked",
    "compiled",
    "contracts",
    "data",
    "dictionary",
    "dictionary_rules",
    "elbo",
    "evaluation",
    "fold",
    "initialise",
    "interop",
    "learner",
    "likelihoods",
    "load",
    "loop",
    "losses",
    "merge",
    "mesh",
    "nets",
    "objectives",
    "priors",
    "recipes",
    "reconstruction",
    "resampled",
    "restarted",
    "samplers",
    "seeds",
    "sound",
    "sparse",
    "standardised",
    "swept",
    "tied",
    "total",
    "unfold",
    "watch",
]
