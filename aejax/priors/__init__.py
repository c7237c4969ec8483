"""Priors: the distributions of the latents before an input is seen.

`aejax.contracts.Prior` defines what a prior must have. If the KL to a prior has no closed form, use
the objective elbo(rate=losses.rate()), which samples the KL. Only `Vamp` needs the encoder to
sample.
"""

from aejax.priors.codes import Codes
from aejax.priors.conditional import Conditional
from aejax.priors.flow import Flow
from aejax.priors.levels import Ladder, Levels
from aejax.priors.mixture import Mixture
from aejax.priors.standard import Standard
from aejax.priors.vamp import Vamp

__all__ = ["Codes", "Conditional", "Flow", "Ladder", "Levels", "Mixture", "Standard", "Vamp"]
