"""Evaluation: pure functions (model, variables, data, key) that evaluate a trained model on data.

Functions that draw no random numbers have no argument key. Each function compiles once per model.
If several models were trained together by `seeds`, use `over_seeds` to call a function for each of
them without recompiling it.
"""

from aejax.evaluation import (
    anomaly,
    curation,
    decoding,
    disentanglement,
    generation,
    ngram,
    texts,
)
from aejax.evaluation.absorption import Absorption, absorption
from aejax.evaluation.annealed import Annealed, Bidirectional, annealed, bidirectional
from aejax.evaluation.batches import Data, each, means, over_seeds
from aejax.evaluation.chains import Walk
from aejax.evaluation.cost import Cost, nll_cost
from aejax.evaluation.decoding import member
from aejax.evaluation.decomposition import (
    Decomposition,
    Posteriors,
    decomposition,
    posteriors,
)
from aejax.evaluation.enumeration import enumerated
from aejax.evaluation.examples import Nearest, chosen, nearest, undrawn, varied
from aejax.evaluation.features import Recovery, recovery
from aejax.evaluation.firings import Firings, firings
from aejax.evaluation.generation import Quality, quality
from aejax.evaluation.latents import ActiveUnits, active_units, kl_per_dimension, latents
from aejax.evaluation.likelihood import Elbo, Nll, elbo, nll
from aejax.evaluation.names import figure_name
from aejax.evaluation.paths import Paths, paths
from aejax.evaluation.principal import Plane, Principal, plane, principal, project, rebuild
from aejax.evaluation.probing import Probe, probe
from aejax.evaluation.profiles import Profile, profiles
from aejax.evaluation.reconstruction import Reconstruction, reconstruction
from aejax.evaluation.recovered import Recovered, explained_by_position, recovered
from aejax.evaluation.sparsity import Sparsity, sparsity
from aejax.evaluation.uniqueness import Shared, shared_latents
from aejax.evaluation.units import (
    TopExamples,
    Units,
    agreement,
    centred,
    signed,
    top_examples,
    units,
)
from aejax.evaluation.usage import collapsed, usage

__all__ = [
    "Absorption",
    "ActiveUnits",
    "Annealed",
    "Bidirectional",
    "Cost",
    "Data",
    "Decomposition",
    "Elbo",
    "Firings",
    "Nearest",
    "Nll",
    "Paths",
    "Plane",
    "Posteriors",
    "Principal",
    "Probe",
    "Profile",
    "Quality",
    "Reconstruction",
    "Recovered",
    "Recovery",
    "Shared",
    "Sparsity",
    "TopExamples",
    "Units",
    "Walk",
    "absorption",
    "active_units",
    "agreement",
    "annealed",
    "anomaly",
    "bidirectional",
    "centred",
    "chosen",
    "collapsed",
    "curation",
    "decoding",
    "decomposition",
    "disentanglement",
    "each",
    "elbo",
    "enumerated",
    "explained_by_position",
    "figure_name",
    "firings",
    "generation",
    "kl_per_dimension",
    "latents",
    "means",
    "member",
    "nearest",
    "ngram",
    "nll",
    "nll_cost",
    "over_seeds",
    "paths",
    "plane",
    "posteriors",
    "principal",
    "probe",
    "profiles",
    "project",
    "quality",
    "rebuild",
    "reconstruction",
    "recovered",
    "recovery",
    "shared_latents",
    "signed",
    "sparsity",
    "texts",
    "top_examples",
    "undrawn",
    "units",
    "usage",
    "varied",
]
