"""Priors: what the latents are drawn from when there is no input.

A prior is a Linen module with three methods. `posterior` is the model's own map from a batch to a
code, for priors that are made of posteriors; `context` is the batch's, and a prior may ignore it.

    log_prob(z, context, posterior) -> f32[B]
    sample(key, n, shape, context, posterior) -> z, n of them, each of the bottleneck's `shape`
    kl(code, context, posterior) -> f32[B, L] per dimension, or None without a closed form

Priors without a closed form need the sampled rate: elbo(rate=losses.rate()). All but `Vamp` sample
without the encoder.
"""

from aejax.priors.conditional import Conditional
from aejax.priors.flow import Flow
from aejax.priors.levels import Ladder, Levels
from aejax.priors.mixture import Mixture
from aejax.priors.standard import Standard
from aejax.priors.vamp import Vamp

__all__ = ["Conditional", "Flow", "Ladder", "Levels", "Mixture", "Standard", "Vamp"]
