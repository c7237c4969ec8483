"""Tests of the KL's parts, against loops in numpy and on posteriors whose parts are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax as ae
from aejax import evaluation
from tests.evaluation.cases import Held, linear_gaussian

KEY = jax.random.key(2)


def model(kernel, bias):
    """Makes a linear model x -> N(mean, exp(log_std)^2) without a decoder."""
    kernel, bias = (jnp.asarray(a, jnp.float32) for a in (kernel, bias))
    parts = ae.Autoencoder(
        ae.nets.Identity(),
        ae.Gaussian(bias.shape[0] // 2),
        ae.nets.MLP((), shape=(kernel.shape[0],)),
        ae.priors.Standard(),
        ae.likelihoods.Gaussian(),
    )
    return parts, {"params": {"bottleneck": {"statistics": {"kernel": kernel, "bias": bias}}}}


def decomposed(kernel, bias, x, **options):
    return evaluation.decomposition(*model(kernel, bias), Held(x), KEY, **options)


def test_against_loops():
    """The draws are the same. Fails if q(z) is that of the batch alone, or without log N."""
    case = linear_gaussian(0.5, 1.3, examples=9, latents=2, size=3)
    found = evaluation.decomposition(case.model, case.variables, case.data, KEY, batch=4)
    mean, log_std = evaluation.posteriors(case.model, case.variables, case.data, batch=4)
    mean, std = np.float64(mean), np.exp(np.float64(log_std))
    np.testing.assert_allclose(std, 1.3 * np.broadcast_to(case.std, std.shape), rtol=1e-5)

    def normal(z, m, s):
        return np.exp(-0.5 * ((z - m) / s) ** 2) / (s * np.sqrt(2 * np.pi))

    for i in range(9):
        noise = jax.random.normal(jax.random.fold_in(jax.random.fold_in(KEY, 0), i), (1, 2))
        z = mean[i] + std[i] * np.float64(noise[0])
        densities = np.array([normal(z, mean[n], std[n]) for n in range(9)])
        joint, marginals = np.log(densities.prod(1).mean()), np.log(densities.mean(0)).sum()
        own, prior = np.log(densities[i]).sum(), np.log(normal(z, 0, 1)).sum()
        expected = (own - prior, own - joint, joint - marginals, marginals - prior)
        np.testing.assert_allclose([field[i] for field in found], expected, rtol=1e-3, atol=1e-4)


def test_the_parts_add_up_to_the_kl():
    """Their sum is the ELBO's rate in the mean. Fails if a part is counted twice."""
    case = linear_gaussian(0.5, 1.3, examples=40)
    found = evaluation.decomposition(case.model, case.variables, case.data, KEY, draws=50)
    total = found.mutual_information + found.total_correlation + found.dimension_wise_kl
    np.testing.assert_allclose(total, found.kl, rtol=1e-4, atol=1e-4)
    rate = evaluation.elbo(case.model, case.variables, case.data, KEY).rate
    difference = found.kl - rate
    assert difference.std() < 1
    assert abs(difference.mean()) < 3 * difference.std() / 40**0.5


def test_posteriors_that_do_not_look():
    """Posteriors are all equal, so information and total correlation are 0.

    Fails if N is 1 too small.
    """
    found = decomposed(np.zeros((2, 4)), [1.0, 0.0, 0.0, 0.0], np.eye(2))
    np.testing.assert_allclose(found.mutual_information, 0, atol=1e-5)
    np.testing.assert_allclose(found.total_correlation, 0, atol=1e-5)


def test_posteriors_far_apart_tell_which_example():
    """I = log N. Two latents that say the same have TC = log N; two that share it have TC = 0."""
    x = np.linspace(-1, 1, 8)[:, None]
    narrow = [0, 0, -6.0, -6.0]
    both = decomposed([[9.0, 9.0, 0, 0]], narrow, x)
    np.testing.assert_allclose(both.mutual_information, np.log(8), rtol=1e-4)
    np.testing.assert_allclose(both.total_correlation, np.log(8), rtol=1e-4)
    grid = np.array([[i, j] for i in range(-1, 2) for j in range(-1, 2)], float)
    apart = decomposed([[9.0, 0, 0, 0], [0, 9.0, 0, 0]], narrow, grid)
    np.testing.assert_allclose(apart.mutual_information, np.log(9), rtol=1e-4)
    np.testing.assert_allclose(apart.total_correlation, 0, atol=1e-4)


def test_figures_depend_neither_on_the_batch_nor_on_what_fills_it():
    case = linear_gaussian(0.5, 1.3, examples=7, latents=2, size=3)
    arguments = (case.model, case.variables, case.data, KEY)
    one, other = (evaluation.decomposition(*arguments, batch=b) for b in (3, 7))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_refusals():
    case = linear_gaussian(examples=4)
    arguments = (case.variables, case.data, KEY)
    with pytest.raises(ae.UserError, match="draws is 0"):
        evaluation.decomposition(case.model, *arguments, draws=0)
    with pytest.raises(ae.UserError, match="without a prior"):
        evaluation.decomposition(case.model.clone(prior=None), *arguments)
    point = case.model.clone(bottleneck=ae.Point(8))
    variables = jax.jit(point.init)(KEY, next(case.data.batches(2)))
    with pytest.raises(ae.UserError, match="a PointCode does not have"):
        evaluation.decomposition(point, variables, case.data, KEY)
