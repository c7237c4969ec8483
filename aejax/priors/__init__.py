"""Priors: the distributions p(z) of the latents.

`aejax.contracts.Prior` defines which methods a prior must have. If the KL to a prior has no closed
form, use the objective elbo(rate=losses.rate()), which estimates the KL from draws of z. Sampling
latents needs the encoder only if the prior is `Vamp`.
"""

from aejax.priors.categorical import Categorical
from aejax.priors.codes import Codes
from aejax.priors.conditional import Conditional
from aejax.priors.flow import Flow
from aejax.priors.full_mixture import FullMixture
from aejax.priors.hypersphere import Hypersphere
from aejax.priors.levels import Ladder, Levels
from aejax.priors.mixture import Mixture
from aejax.priors.standard import Standard
from aejax.priors.vamp import Vamp

__all__ = [
    "Categorical",
    "Codes",
    "Conditional",
    "Flow",
    "FullMixture",
    "Hypersphere",
    "Ladder",
    "Levels",
    "Mixture",
    "Standard",
    "Vamp",
]
