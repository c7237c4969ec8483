"""Disentanglement: compares latents f[N, L] with the known factors of variation i[N, F].

    codes = evaluation.latents(model, variables, data)       # posterior means
    mig_of_means(codes, factors)                             # the MIG of disentanglement_lib
    mig_of_samples(*posteriors(model, variables, data), factors)     # the MIG of Chen et al. 2018
    dci(codes, factors).disentanglement

Each metric is a function of numpy arrays and, if it is random, of a seed. The library
disentanglement_lib evaluates all factors of dSprites; Chen et al. 2018 leave out the factor
"shape".
"""

from aejax.evaluation.disentanglement.information import mig_of_means, mig_of_samples, modularity
from aejax.evaluation.disentanglement.intervention import beta_vae_score, factor_vae_score
from aejax.evaluation.disentanglement.prediction import (
    Dci,
    dci,
    sap_of_regression,
    sap_of_threshold,
)

__all__ = [
    "Dci",
    "beta_vae_score",
    "dci",
    "factor_vae_score",
    "mig_of_means",
    "mig_of_samples",
    "modularity",
    "sap_of_regression",
    "sap_of_threshold",
]
