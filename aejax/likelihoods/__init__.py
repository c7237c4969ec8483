"""Likelihoods: the distributions of the target given the decoder's output.

`aejax.contracts.Likelihood` defines what a likelihood must have.

Discrete likelihoods give probabilities and continuous ones densities, whose nats must not be
compared with each other. `bits_per_dimension` converts nats at the end of an evaluation.
"""

from aejax.likelihoods.bernoulli import Bernoulli
from aejax.likelihoods.categorical import Categorical
from aejax.likelihoods.colour import ColourLogisticMixture
from aejax.likelihoods.gaussian import Gaussian, HeteroscedasticGaussian, LearnedGaussian
from aejax.likelihoods.logistic import DiscretisedLogistic, LogisticMixture, bits_per_dimension
from aejax.likelihoods.pixelcnn import PixelCNN
from aejax.likelihoods.standardised import Standardised

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
    "Standardised",
    "bits_per_dimension",
]
