"""Tests a hierarchy of three levels against its exact density.

Each coordinate is a chain of its own: z_1 ~ N(0, 1), z_2 depends on z_1, z_3 depends on both, and x
= W z_3 + bias + noise. Everything is linear and Gaussian, so all conditionals of prior and
posterior follow from one covariance matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import aejax as ae
from aejax import evaluation
from tests.evaluation.cases import Held

KEY = jax.random.key(3)
N, D, L, NOISE, DRAWS = 16, 5, 2, 0.5, 20_000
MLP = ae.nets.MLP


class Conditional(NamedTuple):
    """N(gain @ given, std^2) for each coordinate of a level."""

    gain: np.ndarray  # f64[L, number of given values]
    std: np.ndarray  # f64[L]


def conditional(covariance: np.ndarray, of: int, given: Sequence[int]) -> Conditional:
    """Returns one variable's distribution given others, from the covariance f64[L, V, V]."""
    given = list(given)
    inner, cross = covariance[:, given][:, :, given], covariance[:, of][:, given]
    gain = np.linalg.solve(inner, cross[..., None])[..., 0] if given else cross
    return Conditional(gain, np.sqrt(covariance[:, of, of] - np.sum(gain * cross, axis=1)))


class Trunk(nn.Module):
    """A ladder's trunk whose state f32[n, 3 L] holds the latents of all levels side by side."""

    nets: Sequence[nn.Module]

    def start(self, n, context=None):
        return jnp.zeros((n, 3 * L))

    def statistics(self, level, state):
        return self.nets[level](state)

    def advance(self, level, state, z):
        return state.at[:, level * L : (level + 1) * L].set(z)


class Case(NamedTuple):
    """A model whose bottleneck returns the exact posterior."""

    model: Any
    variables: Any
    data: Held
    log_prob: np.ndarray  # f64[N], the exact log p(x)
    prior: list[Conditional]  # for each level, given the levels above
    posterior: list[Conditional]  # for each level, given W^T (x - bias) and the levels above
    seen: np.ndarray  # f64[N, L], W^T (x - bias)


@pytest.fixture(scope="module", params=["Levels", "Ladder"])
def case(request) -> Case:
    generator = np.random.default_rng(0)
    on_1, on_2, std_2, std_3 = np.array([0.8, -0.6]), np.array([-0.5, 1.1]), 0.7, 0.6
    between = np.array([0.9, -1.2])  # the factor of z_1 in z_2
    scales = np.array([0.6, 1.3])
    weight = np.linalg.qr(generator.normal(size=(D, L)))[0] * scales
    bias = generator.normal(size=D)

    # (z_1, z_2, z_3, W^T (x - bias)) = mix @ independent noise, for each coordinate.
    mix = np.zeros((L, 4, 4))
    mix[:, 0, 0] = 1
    mix[:, 1] = between[:, None] * mix[:, 0] + std_2 * np.eye(4)[1]
    mix[:, 2] = on_1[:, None] * mix[:, 0] + on_2[:, None] * mix[:, 1] + std_3 * np.eye(4)[2]
    mix[:, 3] = scales[:, None] ** 2 * mix[:, 2] + NOISE * scales[:, None] * np.eye(4)[3]
    covariance = mix @ np.swapaxes(mix, 1, 2)
    prior = [conditional(covariance, i, range(i)) for i in range(3)]
    posterior = [conditional(covariance, i, [3, *range(i)]) for i in range(3)]
    np.testing.assert_allclose(prior[2].gain, np.stack([on_1, on_2], axis=1))

    inputs = (weight * covariance[:, 2, 2]) @ weight.T + NOISE**2 * np.eye(D)
    x = generator.multivariate_normal(bias, inputs, N).astype(np.float32).astype(np.float64)
    apart = x - bias
    square = np.einsum("ni,ij,nj->n", apart, np.linalg.inv(inputs), apart)
    log_prob = -0.5 * (square + np.linalg.slogdet(2 * np.pi * inputs)[1])

    def diagonal(gains):
        """Writes gains f64[L, V] as the kernel f64[V L, L] of a layer that reads V vectors."""
        return np.concatenate([np.zeros((0, L)), *(np.diag(gain) for gain in gains.T)])

    def linear(gain, std, offset=0.0):
        kernel = np.concatenate([gain, np.zeros_like(gain)], axis=1)
        return {
            "output": {"kernel": kernel, "bias": np.concatenate([offset + 0 * std, np.log(std)])}
        }

    def padded(gain, rows):
        return np.concatenate([gain, np.zeros((rows - len(gain), L))])

    ladder, heads, priors = request.param == "Ladder", [], []
    for i, (p, q) in enumerate(zip(prior, posterior, strict=True)):
        above, of_x = diagonal(q.gain[:, 1:]), weight * q.gain[:, 0]
        above = padded(above, 3 * L) if ladder else above
        heads.append(linear(np.concatenate([of_x, above]), q.std, -bias @ of_x))
        # A net of priors.Levels reads the nearest level first.
        nearest = diagonal(np.roll(p.gain, 1, axis=1))
        priors.append(linear(padded(diagonal(p.gain), 3 * L) if ladder else nearest, p.std))
        assert len(nearest) == i * L
    path = {"output": {"kernel": np.concatenate([np.zeros((2 * L, D)), weight.T]), "bias": bias}}
    nets = {f"nets_{i}": net for i, net in enumerate(priors if ladder else priors[1:])}
    params = {
        "bottleneck": {f"nets_{i}": net for i, net in enumerate(heads)},
        "decoder": path if ladder else {"net": path},
        "prior": {"trunk": nets} if ladder else nets,
    }
    # no two of them share weights
    decoder, below = MLP((), (D,)), [MLP((), (2 * L,)) for _ in range(6)]
    model = ae.Autoencoder(
        ae.nets.Identity(),
        ae.Levels((L,) * 3, below[:3]),
        decoder if ladder else ae.nets.Joined((None,) * 3, decoder),
        ae.priors.Ladder(Trunk(below[3:])) if ladder else ae.priors.Levels(below[4:]),
        ae.likelihoods.Gaussian(NOISE),
    )
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    variables = {"params": params, "memory": {}}
    return Case(model, variables, Held(x), log_prob, prior, posterior, apart @ weight)


def noises(levels: list[Conditional], z: Any, given: list[np.ndarray]) -> np.ndarray:
    """Returns the noise f64[n, 3 L] of a draw, (value - conditional mean) / deviation of each
    level.
    """
    found = []
    for level, draw in zip(levels, z, strict=True):
        mean = sum((g * v for g, v in zip(level.gain.T, given, strict=True)), np.zeros(L))
        values = np.asarray(draw, np.float64)
        found.append((values - mean) / level.std)
        given = [*given, values]
    return np.concatenate(found, axis=1)


def check_independent(noise: np.ndarray) -> None:
    """Checks mean 0, variance 1 and no correlation, within four standard errors."""
    n, moment = len(noise), noise.T @ noise / len(noise)
    assert np.max(np.abs(noise.mean(0))) < 4 / n**0.5
    assert np.max(np.abs(np.diag(moment) - 1)) < 4 * (2 / n) ** 0.5
    assert np.max(np.abs(moment - np.diag(np.diag(moment)))) < 4 / n**0.5


def test_at_the_exact_posterior_every_weight_is_the_density(case):
    """Importance weights are p(x).

    Fails if the third level of prior or posterior reads only the second.
    """
    found = evaluation.nll(case.model, case.variables, case.data, KEY, draws=4, group=4)
    np.testing.assert_allclose(found.nll, -case.log_prob, atol=2e-4)
    np.testing.assert_allclose(found.effective_sample_size, 4, rtol=1e-3)


def test_each_level_of_the_prior_is_drawn_by_noise_of_its_own(case):
    """Fails if one key serves all levels: their noises are then equal, which no density shows."""
    z = case.model.apply(case.variables, KEY, DRAWS, method="sample_latent")
    check_independent(noises(case.prior, z, []))


def test_each_level_of_the_posterior_is_drawn_by_noise_of_its_own(case):
    """All draws are for one example.

    Fails if one key serves all levels, or if a level reads the mean of the level above in place of
    its draw.
    """
    x = jnp.broadcast_to(case.data.x[:1], (DRAWS, D))
    z = case.model.apply(case.variables, ae.Batch(x, x), KEY).code.latent
    check_independent(noises(case.posterior, z, [case.seen[0]]))
