"""Priors: the distributions of the latents without an input.

`aejax.contracts.Prior` defines what a prior must have. Priors whose KL has no closed form need the
sampled rate: elbo(rate=losses.rate()). All priors but `Vamp` sample without the encoder.
"""

from aejax.priors.conditional import Conditional
from aejax.priors.flow import Flow
from aejax.priors.levels import Ladder, Levels
from aejax.priors.mixture import Mixture
from aejax.priors.standard import Standard
from aejax.priors.vamp import Vamp

__all__ = ["Conditional", "Flow", "Ladder", "Levels", "Mixture", "Standard", "Vamp"]
