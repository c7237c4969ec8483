"""Priors: what the latents are drawn from when there is no input.

`aejax.contracts.Prior` says what a prior must have. Priors without a closed form of the KL need the
sampled rate: elbo(rate=losses.rate()). All but `Vamp` sample without the encoder.
"""

from aejax.priors.conditional import Conditional
from aejax.priors.flow import Flow
from aejax.priors.levels import Ladder, Levels
from aejax.priors.mixture import Mixture
from aejax.priors.standard import Standard
from aejax.priors.vamp import Vamp

__all__ = ["Conditional", "Flow", "Ladder", "Levels", "Mixture", "Standard", "Vamp"]
