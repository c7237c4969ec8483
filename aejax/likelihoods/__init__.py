"""Likelihoods: the distributions of the target given the decoder's output.

`aejax.contracts.Likelihood` defines what a likelihood must have.

Discrete likelihoods return log-probabilities and continuous ones log-densities; do not compare one
with the other. All are in nats, which `bits_per_dimension` converts to bits per dimension.
"""

from aejax.likelihoods.bernoulli import Bernoulli
from aejax.likelihoods.categorical import Categorical
from aejax.likelihoods.colour import ColourLogisticMixture
from aejax.likelihoods.counts import NegativeBinomial, Poisson, ZeroInflated
from aejax.likelihoods.gaussian import Gaussian, HeteroscedasticGaussian, LearnedGaussian
from aejax.likelihoods.log_gaussian import LogGaussian
from aejax.likelihoods.logistic import DiscretisedLogistic, LogisticMixture, bits_per_dimension
from aejax.likelihoods.pixelcnn import PixelCNN
from aejax.likelihoods.standardised import Standardised
from aejax.likelihoods.student import StudentT
from aejax.likelihoods.text import Text
from aejax.likelihoods.wave import Wave

__all__ = [
    "Bernoulli",
    "Categorical",
    "ColourLogisticMixture",
    "DiscretisedLogistic",
    "Gaussian",
    "HeteroscedasticGaussian",
    "LearnedGaussian",
    "LogGaussian",
    "LogisticMixture",
    "NegativeBinomial",
    "PixelCNN",
    "Poisson",
    "Standardised",
    "StudentT",
    "Text",
    "Wave",
    "ZeroInflated",
    "bits_per_dimension",
]
