"""Tests of priors against scipy, numpyro and Monte Carlo."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import priors
from aejax.bottlenecks import GaussianCode, PointCode
from aejax.errors import UserError

stats = pytest.importorskip("scipy.stats")


def _code(examples=3, draws=1):
    """Makes codes of `examples` posteriors with `draws` samples each: leaves [examples * draws,
    5].
    """
    generator = np.random.default_rng(0)
    mean = np.repeat(generator.normal(size=(examples, 5)), draws, axis=0)
    log_std = np.repeat(0.4 * generator.normal(size=(examples, 5)) - 0.3, draws, axis=0)
    z = mean + np.exp(log_std) * generator.normal(size=mean.shape)
    return GaussianCode(*(jnp.asarray(a, jnp.float32) for a in (z, mean, log_std)))


def test_standard_density_against_scipy():
    """Fails if the density is the mean over latents, or the sum over the batch."""
    z = _code().z
    expected = stats.norm.logpdf(np.asarray(z, np.float64)).sum(axis=1)
    np.testing.assert_allclose(priors.Standard().log_prob(z), expected, rtol=1e-5)


def test_posterior_density_against_scipy():
    """log q of a code at its own sample, with and without the stopped gradient."""
    code = _code()
    expected = stats.norm.logpdf(code.z, code.mean, np.exp(code.log_std)).sum(axis=1)
    np.testing.assert_allclose(code.log_q(), expected, rtol=1e-5)
    np.testing.assert_allclose(code.log_q(stick=True), expected, rtol=1e-5)


def test_standard_kl_against_numpyro():
    """Fails if log std is a log variance, or if the two arguments are swapped."""
    distributions = pytest.importorskip("numpyro.distributions")
    code = _code()
    posterior = distributions.Normal(code.mean, jnp.exp(code.log_std))
    expected = distributions.kl.kl_divergence(
        posterior, distributions.Normal(jnp.zeros((3, 5)), jnp.ones((3, 5)))
    )
    np.testing.assert_allclose(priors.Standard().kl(code), expected, rtol=1e-4, atol=1e-6)


def test_standard_kl_against_monte_carlo():
    """Three posteriors agree within three standard errors. Fails if q and p are swapped."""
    draws = 40_000
    code = _code(draws=draws)
    ratio = code.log_q() - priors.Standard().log_prob(code.z)
    ratio = np.asarray(ratio, np.float64).reshape(3, draws)
    closed = np.asarray(priors.Standard().kl(code)).sum(axis=1)[::draws]
    error = ratio.std(axis=1) / np.sqrt(draws)
    assert np.all(error < 0.02)
    assert np.all(np.abs(ratio.mean(axis=1) - closed) < 3 * error)


def test_kl_of_the_prior_itself_is_zero():
    zeros = jnp.zeros((2, 4))
    np.testing.assert_allclose(priors.Standard().kl(GaussianCode(zeros, zeros, zeros)), 0.0)


def test_a_code_without_a_distribution_has_no_closed_form():
    assert priors.Standard().kl(PointCode(jnp.zeros((2, 4)))) is None


def test_bounds_of_pseudo_inputs_have_room_between_them():
    """Fails if (1, 0) is accepted, which clips every pseudo-input to one number."""
    prior = priors.Vamp((2,), 3, bounds=(1.0, 0.0))
    with pytest.raises(UserError, match="a lower bound below the upper one"):
        prior.init(jax.random.key(0), jnp.zeros((1, 2)), method="log_prob")


def test_samples_are_standard_normal():
    """Fails if one sample is repeated, or if the shape is that of the batch."""
    drawn = np.asarray(priors.Standard().sample(jax.random.key(0), 4000, (5,)))
    assert drawn.shape == (4000, 5)
    assert stats.kstest(drawn.ravel(), "norm").pvalue > 1e-3
    assert np.max(np.abs(np.corrcoef(drawn.T) - np.eye(5))) < 0.08


def test_a_flow_goes_back_to_its_noise_and_counts_the_volume():
    """Fails if the inverse does not reverse the couplings, or if log det has the other sign."""
    prior = priors.Flow(3, (8,))
    z, context = (jax.random.normal(jax.random.key(i), (5, size)) for i, size in ((0, 4), (1, 2)))
    start = jax.jit(functools.partial(prior.init, method="noise"))(jax.random.key(2), z, context)
    leaves, tree = jax.tree.flatten(start)  # the flow starts as the identity
    drawn = [
        0.5 * jax.random.normal(jax.random.fold_in(jax.random.key(3), i), leaf.shape)
        for i, leaf in enumerate(leaves)
    ]
    variables = jax.tree.unflatten(tree, drawn)

    def noise(z, context):
        return prior.apply(variables, z[None], context[None], method="noise")[0][0]

    found, log_det = jax.jit(functools.partial(prior.apply, method="noise"))(variables, z, context)
    latent = jax.jit(functools.partial(prior.apply, method="latent"))
    np.testing.assert_allclose(latent(variables, found, context), z, atol=1e-5)
    jacobians = jax.jit(jax.vmap(jax.jacobian(noise)))(z, context)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobians)[1], atol=1e-4)
    other = latent(variables, found, context + 1)
    assert np.abs(other - z).max() > 0.1


@pytest.mark.parametrize("bounds", [(0.0, 1.0), None])
def test_pseudo_inputs_are_kept_within_bounds(bounds):
    """Half of them start outside.

    Fails if the encoder sees values that no data has, or if they are clipped although there are no
    bounds.
    """
    prior = priors.Vamp((4,), 6, start=0.5, spread=0.8, bounds=bounds)
    z = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)

    def posterior(batch):
        return GaussianCode(batch.x, batch.x, jnp.zeros_like(batch.x))

    density = jax.jit(
        functools.partial(prior.init_with_output, posterior=posterior, method="log_prob")
    )
    found, variables = density(jax.random.key(0), z)
    centres = np.asarray(variables["params"]["inputs"], np.float64)
    assert 0.2 < np.mean((centres < 0) | (centres > 1)) < 0.8
    centres = centres if bounds is None else np.clip(centres, *bounds)
    each = stats.norm.logpdf(z[:, None], centres[None]).sum(-1)
    np.testing.assert_allclose(found, np.log(np.mean(np.exp(each), axis=1)), rtol=1e-5)


def test_a_conditional_prior_starts_as_the_standard_normal():
    """It does for any context, also with a hidden layer. Fails if the last layer has no zeros."""
    z, context = (
        np.random.default_rng(i).normal(size=(5, size)).astype(np.float32)
        for i, size in ((0, 4), (1, 3))
    )
    prior = priors.Conditional((8,))

    def density(key):
        return prior.init_with_output(key, z, context, method="log_prob")[0]

    expected = stats.norm.logpdf(np.float64(z)).sum(axis=1)
    np.testing.assert_allclose(jax.jit(density)(jax.random.key(0)), expected, rtol=1e-5)
