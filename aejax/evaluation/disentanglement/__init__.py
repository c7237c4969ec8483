"""How well latents stand for known factors: codes f[N, L] beside factors of variation i[N, F].

    codes = evaluation.latents(model, variables, data)       # posterior means
    mig_of_means(codes, factors)                             # disentanglement_lib's
    mig_of_samples(*posteriors(model, variables, data), factors)     # Chen's: another number
    dci(codes, factors).disentanglement

Each is a function of numpy arrays and a seed. Give all factors for disentanglement_lib's figures,
and leave shape out for Chen's.
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
