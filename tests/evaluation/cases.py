"""Models whose density is known exactly, and a stand-in for a split of data."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import aejax as ae
from aejax.types import Batch


class Held:
    """A split of arrays in memory, with the methods that evaluations use."""

    def __init__(self, x, target=None, mask=None):
        self.x = np.asarray(x, np.float32)
        self.target = self.x if target is None else np.asarray(target, np.float32)
        self.mask = mask

    def __len__(self):
        return len(self.x)

    def batches(self, size):
        for i in range(0, len(self.x), size):
            rows = slice(i, i + size)
            mask = self.mask if self.mask is None or self.mask.shape[0] == 1 else self.mask[rows]
            yield Batch(jnp.asarray(self.x[rows]), jnp.asarray(self.target[rows]), None, mask)


class Opaque(ae.contracts.Prior):
    """The standard normal prior without its closed form of the KL."""

    inner: Any = ae.priors.Standard()

    def log_prob(self, z, context=None, posterior=None):
        return self.inner.log_prob(z, context, posterior)

    def sample(self, key, n, shape, context=None, posterior=None):
        return self.inner.sample(key, n, shape, context, posterior)


class LinearGaussian(NamedTuple):
    """x = W z + b + std * noise with orthogonal columns of W, so that the posterior is diagonal."""

    model: Any
    variables: Any
    data: Held
    log_prob: np.ndarray  # f64[N], the exact log p(x)
    mean: np.ndarray  # the mean of the exact posterior
    std: np.ndarray  # the deviation of the exact posterior


def linear_gaussian(
    shift=0.0, widen=1.0, examples=64, latents=8, size=12, prior=None, decoder=None
):
    """Makes a linear-Gaussian VAE whose posterior is the exact one, shifted by `shift` of its
    deviations and with its deviation multiplied by `widen`.
    """
    generator = np.random.default_rng(0)
    scales = np.linspace(0.3, 1.5, latents)
    weight = np.linalg.qr(generator.normal(size=(size, latents)))[0] * scales
    bias, noise = generator.normal(size=size), 0.5
    z = generator.normal(size=(examples, latents))
    x = z @ weight.T + bias + noise * generator.normal(size=(examples, size))
    x = x.astype(np.float32).astype(np.float64)

    variance = 1.0 / (1.0 + scales**2 / noise**2)
    std, gain = np.sqrt(variance), (weight * variance / noise**2)
    kernel = np.concatenate([gain, np.zeros_like(gain)], axis=1)
    offset = np.concatenate([-bias @ gain + shift * std, np.log(widen * std)])
    params = {
        "bottleneck": {"statistics": {"kernel": kernel, "bias": offset}},
        "decoder": {"output": {"kernel": weight.T, "bias": bias}},
    }
    model = ae.Autoencoder(
        ae.nets.Identity(),
        ae.Gaussian(latents),
        ae.nets.MLP((), shape=(size,)) if decoder is None else decoder(size),
        ae.priors.Standard() if prior is None else prior,
        ae.likelihoods.Gaussian(std=noise),
    )
    covariance = weight @ weight.T + noise**2 * np.eye(size)
    apart = x - bias
    log_prob = -0.5 * (
        np.einsum("ni,ij,nj->n", apart, np.linalg.inv(covariance), apart)
        + np.linalg.slogdet(2.0 * np.pi * covariance)[1]
    )
    variables = {"params": _float32(params), "memory": {}}
    return LinearGaussian(model, variables, Held(x), log_prob, apart @ gain, std)


def _float32(tree):
    if isinstance(tree, dict):
        return {name: _float32(value) for name, value in tree.items()}
    return jnp.asarray(tree, jnp.float32)
