"""aejax: autoencoders as pure functions in JAX and Flax, one learner for all of them."""

from aejax import (
    bounds,
    data,
    dictionary,
    evaluation,
    initialise,
    likelihoods,
    losses,
    nets,
    priors,
    recipes,
)
from aejax.bottlenecks import (
    AbsTopK,
    AnnealedReLU,
    BatchTopK,
    FiniteScalarQuantised,
    FullGaussian,
    Gated,
    Gaussian,
    InverseAutoregressive,
    JumpReLU,
    Levels,
    Planar,
    Point,
    ReLU,
    Sylvester,
    TopK,
    UpwardLevels,
    VectorQuantised,
)
from aejax.compiled import compiled, dictionary_rules, mesh
from aejax.errors import UserError
from aejax.folding import fold, unfold
from aejax.initialise import standardised, tied
from aejax.learner import learner
from aejax.loop import NonFinite, loop
from aejax.model import Autoencoder
from aejax.objective import elbo, merge, reconstruction, sparse, total, watch
from aejax.opened import load
from aejax.preflight import check_window
from aejax.resampling import resampled
from aejax.run import Run
from aejax.types import Batch, Bound, Forward, Learner, Objective, Source, State, Term
from aejax.wrappers import averaged, chunked, seeds, swept

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
    "InverseAutoregressive",
    "JumpReLU",
    "Learner",
    "Levels",
    "NonFinite",
    "Objective",
    "Planar",
    "Point",
    "ReLU",
    "Run",
    "Source",
    "State",
    "Sylvester",
    "Term",
    "TopK",
    "UpwardLevels",
    "UserError",
    "VectorQuantised",
    "averaged",
    "bounds",
    "check_window",
    "chunked",
    "compiled",
    "data",
    "dictionary",
    "dictionary_rules",
    "elbo",
    "evaluation",
    "fold",
    "initialise",
    "learner",
    "likelihoods",
    "load",
    "loop",
    "losses",
    "merge",
    "mesh",
    "nets",
    "priors",
    "recipes",
    "reconstruction",
    "resampled",
    "seeds",
    "sparse",
    "standardised",
    "swept",
    "tied",
    "total",
    "unfold",
    "watch",
]
