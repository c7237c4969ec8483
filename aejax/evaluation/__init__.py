"""Figures of a trained model on data: pure functions of (model, variables, data, key).

Those without noise take no key. Each compiles once for a model and serves all members of `seeds`.
"""

from aejax.evaluation import disentanglement, generation
from aejax.evaluation.annealed import Annealed, Bidirectional, annealed, bidirectional
from aejax.evaluation.chains import Walk
from aejax.evaluation.cost import Cost, nll_cost
from aejax.evaluation.decomposition import (
    Decomposition,
    Posteriors,
    decomposition,
    posteriors,
)
from aejax.evaluation.generation import Quality, quality
from aejax.evaluation.latents import ActiveUnits, active_units, kl_per_dimension, latents
from aejax.evaluation.likelihood import Elbo, Nll, elbo, nll
from aejax.evaluation.names import figure_name
from aejax.evaluation.parts import Data, each, means, over_seeds
from aejax.evaluation.paths import Paths, paths
from aejax.evaluation.reconstruction import Reconstruction, reconstruction
from aejax.evaluation.sparsity import Sparsity, sparsity
from aejax.evaluation.units import Principal, Units, principal, project, rebuild, signed, units
from aejax.evaluation.usage import collapsed, usage

__all__ = [
    "ActiveUnits",
    "Annealed",
    "Bidirectional",
    "Cost",
    "Data",
    "Decomposition",
    "Elbo",
    "Nll",
    "Paths",
    "Posteriors",
    "Principal",
    "Quality",
    "Reconstruction",
    "Sparsity",
    "Units",
    "Walk",
    "active_units",
    "annealed",
    "bidirectional",
    "collapsed",
    "decomposition",
    "disentanglement",
    "each",
    "elbo",
    "figure_name",
    "generation",
    "kl_per_dimension",
    "latents",
    "means",
    "nll",
    "nll_cost",
    "over_seeds",
    "paths",
    "posteriors",
    "principal",
    "project",
    "quality",
    "rebuild",
    "reconstruction",
    "signed",
    "sparsity",
    "units",
    "usage",
]
