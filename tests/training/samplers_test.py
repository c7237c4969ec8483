"""Tests of priors that are fitted to the codes of a trained model."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax import samplers
from tests import kinds

D = 3
FACTOR = np.float32([[1.0, 0, 0], [0.8, 0.5, 0], [-0.3, 0.2, 0.4]])
MEAN = np.float32([1.0, -2.0, 0.5])


def plain():
    """Returns an autoencoder whose codes are its inputs, its variables, and correlated data."""
    model = ae.Autoencoder(ae.nets.Identity(), ae.Point(D), ae.nets.Dictionary(D))
    x = MEAN + np.float32(np.random.default_rng(0).normal(size=(4000, D))) @ FACTOR.T
    shapes = jax.eval_shape(model.init, jax.random.key(0), ae.Batch(x[:2], x[:2]))
    params = kinds.numbers(shapes)["params"]
    identity = {"mean": {"kernel": jnp.eye(D), "bias": jnp.zeros(D)}}
    decoder = {**params["decoder"], "atoms": jnp.eye(D), "bias": jnp.zeros(D)}
    return model, {"params": {**params, "bottleneck": identity, "decoder": decoder}}, x


def test_a_plain_autoencoder_samples_from_the_gaussian_mixture_of_its_codes():
    """Its log-density is that of scikit-learn. Fails if the factor is transposed or its diagonal
    not the exponential.
    """
    mixture = pytest.importorskip("sklearn.mixture")
    model, variables, x = plain()
    with pytest.raises(ae.UserError, match="no prior"):
        model.bind(variables).sample(jax.random.key(0), 2)
    fit = samplers.gaussian_mixture(2)
    fitted, own = samplers.fitted(model, variables, x, fit, jax.random.key(1))
    weights = {k: np.asarray(v, np.float64) for k, v in own["params"]["prior"].items()}
    reference = mixture.GaussianMixture(2)
    factor = np.asarray(fitted.bind(own).prior._parameters(D)[2], np.float64)
    reference.weights_, reference.means_ = np.exp(weights["logits"]), weights["mean"]
    reference.precisions_cholesky_ = np.linalg.inv(factor).transpose(0, 2, 1)
    found = fitted.bind(own).prior.log_prob(jnp.asarray(x[:200]))
    np.testing.assert_allclose(found, reference.score_samples(x[:200]), rtol=1e-3, atol=1e-3)
    exact = 0.5 * D * np.log(2 * np.pi * np.e) + np.log(np.diag(FACTOR)).sum()
    assert abs(-reference.score_samples(x).mean() - exact) < 0.05
    drawn = np.asarray(fitted.bind(own).sample(jax.random.key(2), 4000))
    np.testing.assert_allclose(drawn.mean(0), x.mean(0), atol=0.1)
    np.testing.assert_allclose(np.cov(drawn.T), FACTOR @ FACTOR.T, atol=0.1)


@pytest.mark.slow
def test_a_flow_that_is_fitted_to_codes_has_their_entropy():
    """Fails if the parameters are not trained, or if the fitted prior is not the one returned."""
    model, variables, x = plain()
    fit = samplers.by_likelihood(
        ae.priors.Flow(4, (16,)), optax.adam(optax.cosine_decay_schedule(1e-2, 400)), steps=400
    )
    fitted, own = samplers.fitted(model, variables, x, fit, jax.random.key(1))
    program = jax.jit(fitted.bind(own).prior.log_prob)
    exact = 0.5 * D * np.log(2 * np.pi * np.e) + np.log(np.diag(FACTOR)).sum()
    entropy = -np.asarray(program(jnp.asarray(x)), np.float64)
    assert abs(entropy.mean() - exact) < 0.15
    assert fitted.bind(own).sample(jax.random.key(2), 5).shape == (5, D)
    # everything else is as it was
    assert own["params"]["bottleneck"] is variables["params"]["bottleneck"]


@pytest.mark.slow
def test_codes_with_a_context_are_fitted_given_it_and_indices_are_refused():
    x = np.random.default_rng(0).integers(0, 2, (32, 6)).astype(np.float32)
    model = ae.Autoencoder(
        ae.nets.MLP((8,)), ae.FiniteScalarQuantised((2, 2), (2,)), ae.nets.MLP((8,), shape=6)
    )
    batch = ae.Batch(jnp.asarray(x), jnp.asarray(x), jnp.asarray(x[:, :2]))
    variables = kinds.numbers(jax.eval_shape(model.init, jax.random.key(0), batch))
    prior = ae.priors.Codes(4, width=4, layers=1, heads=1)
    fit = samplers.by_likelihood(prior, steps=3)
    fitted, own = samplers.fitted(model, variables, batch, fit, jax.random.key(1))
    sample = jax.eval_shape(
        lambda key: fitted.bind(own).sample(key, 5, jnp.ones((5, 2))), jax.random.key(2)
    )
    assert sample.shape == (5, 6)
    with pytest.raises(ae.UserError, match="vectors of real numbers"):
        samplers.fitted(model, variables, batch, samplers.gaussian_mixture(), jax.random.key(1))


def test_what_cannot_be_fitted_is_refused():
    """Fails if scikit-learn's error, or that of a call of a prior, is raised."""
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    model = ae.Autoencoder(ae.nets.MLP(()), ae.Point(2), ae.nets.MLP((), shape=(4,)))
    variables = model.init(jax.random.key(0), ae.Batch(x, x))
    for fit, says in (
        (samplers.gaussian_mixture(7), "7 Gaussians cannot be fitted to 6 examples"),
        (ae.priors.Flow(), r"fit is a Flow, .* samplers.by_likelihood\(prior\)"),
    ):
        with pytest.raises(ae.UserError, match=says):
            samplers.fitted(model, variables, x, fit, jax.random.key(1))
