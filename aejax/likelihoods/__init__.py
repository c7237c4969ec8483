"""Likelihoods: how the decoder's output says what a target is worth.

A likelihood is a Linen module with four methods and the range of values that it can explain:

    support: (lowest, highest), or None for all real numbers
    shape(event) -> the shape that one example of the decoder's output must have
    log_prob(prediction, target, mask) -> f32[B], nats
    mean(prediction) -> the expected target
    sample(key, prediction) -> a target drawn

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
