"""What the tests of the report share: small data, small models, one drawing."""

import jax
import numpy as np

import aejax as ae
from aejax import data
from aejax.evaluation.examples import chosen
from aejax.report.drawing import plots

SIDE = 6


def splits(labels=True, shape=(SIDE, SIDE, 1), examples=120):
    """Images of three classes: each lights other pixels."""
    rng = np.random.default_rng(0)
    y = np.arange(examples) % 3
    x = 0.3 * rng.random((examples, *shape))
    x.reshape(examples, -1)[np.arange(examples), y] = 1
    return data.arrays(x.astype(np.float32), y if labels else None)


def variational(latents=3, shape=(SIDE, SIDE, 1), bottleneck=ae.Gaussian):
    prior = ae.priors.Standard() if bottleneck is ae.Gaussian else None
    return ae.Autoencoder(
        ae.nets.MLP((16,)),
        bottleneck(latents),
        ae.nets.MLP((16,), shape=shape),
        prior,
        ae.likelihoods.Bernoulli(),
    )


def fresh(model, train):
    return model.init(jax.random.key(3), chosen(train, np.arange(4)))


def bars(theme):
    return plots.bars(np.array([2.0, 1.0]), "KL", "latents", np.array([True, False]), theme=theme)
