"""Likelihoods: how the decoder's output says what a target is worth.

`aejax.contracts.Likelihood` says what a likelihood must have.

Discrete ones give probabilities, continuous ones densities: compare the nats of neither with the
other's. Bits per dimension are derived at the end, by `bits_per_dimension`.
"""

from aejax.likelihoods.bernoulli import Bernoulli
from aejax.likelihoods.categorical import Categorical
from aejax.likelihoods.colour import ColourLogisticMixture
from aejax.likelihoods.gaussian import Gaussian, HeteroscedasticGaussian, LearnedGaussian
from aejax.likelihoods.logistic import DiscretisedLogistic, LogisticMixture, bits_per_dimension
from aejax.likelihoods.pixelcnn import PixelCNN

__all__ = [
    "Bernoulli",
    "Categorical",
    "ColourLogisticMixture",
    "DiscretisedLogistic",
    "Gaussian",
    "HeteroscedasticGaussian",
    "LearnedGaussian",
    "LogisticMixture",
    "PixelCNN",
    "bits_per_dimension",
]
