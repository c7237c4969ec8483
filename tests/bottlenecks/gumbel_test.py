"""Tests of categorical latents against the sum over all codes."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax import evaluation
from tests import kinds
from tests.contract_test import moved

LATENTS, CLASSES, D = 2, 3, 5
X = np.random.default_rng(0).integers(0, 2, (8, D)).astype(np.float32)
ALL = np.asarray(list(itertools.product(range(CLASSES), repeat=LATENTS)), np.int32)


@functools.cache
def started(prior=ae.priors.Categorical(CLASSES)):
    model = ae.Autoencoder(
        ae.nets.MLP((8,)),
        ae.GumbelSoftmax(LATENTS, CLASSES, temperature=0.5),
        ae.nets.MLP((8,), shape=D),
        prior,
        ae.likelihoods.Bernoulli(),
    )
    batch = ae.Batch(X, X)
    init = ae.learner(model, ae.elbo(rate=ae.losses.rate()), optax.sgd(0.0)).init
    shapes = jax.eval_shape(init, jax.random.key(0), batch).params
    return model, moved({"params": kinds.numbers({"params": shapes})["params"]}, 0.5)


def by_hand(model, variables):
    """Returns log p(x, z) and log q(z | x) of each example and code, f64[N, C^L]."""
    bound = model.bind(variables)
    logits = np.float64(bound.posterior(ae.Batch(X, X)).logits)
    q = sum(logits[:, i][:, ALL[:, i]] for i in range(LATENTS))
    p = np.float64(jax.nn.log_softmax(variables["params"]["prior"]["logits"]))
    prior = sum(p[i][ALL[:, i]] for i in range(LATENTS))
    one_hot = np.eye(CLASSES, dtype=np.float32)[ALL]
    decoded = np.float64(bound.decode(jnp.asarray(one_hot)))
    log_prob = X @ decoded.T - np.logaddexp(0, decoded).sum(1)[None]
    return prior[None] + log_prob, q


def test_kl_bound_and_likelihood_are_those_of_the_sum_over_all_codes():
    """Fails if q's probabilities are those of the relaxed draw, if the draw's noise is not Gumbel,
    or if z is not one-hot.
    """
    model, variables = started()
    joint, q = by_hand(model, variables)
    exact = -np.log(np.exp(joint).sum(1))
    np.testing.assert_allclose(
        evaluation.enumerated(model, variables, X, CLASSES), exact, rtol=1e-5
    )
    elbo = (np.exp(q) * (joint - q)).sum(1)
    prior = model_prior(variables)
    found = evaluation.elbo(model, variables, X, jax.random.key(0), draws=2000, group=500)
    kl = (np.exp(q) * (q - prior)).sum(1)
    np.testing.assert_allclose(found.rate, kl, rtol=1e-4, atol=1e-5)
    given = joint - prior  # log p(x | z), which is sampled
    spread = (np.exp(q) * given**2).sum(1) - (np.exp(q) * given).sum(1) ** 2
    assert np.all(np.abs(found.elbo - elbo) < 4.5 * np.sqrt(spread / 2000) + 1e-4)
    weighted = evaluation.nll(model, variables, X, jax.random.key(1), draws=4000, group=500)
    # The variance of a weight p(x, z) / q(z | x), relative to p(x)^2, is known too.
    variance = np.exp(2 * joint - q).sum(1) * np.exp(2 * exact) - 1
    assert np.all(np.abs(np.exp(exact - weighted.nll) - 1) < 4.5 * np.sqrt(variance / 4000))
    assert np.all(elbo < -exact + 1e-9)


def model_prior(variables):
    p = np.float64(jax.nn.log_softmax(variables["params"]["prior"]["logits"]))
    return sum(p[i][ALL[:, i]] for i in range(LATENTS))[None]


def test_draws_have_the_probabilities_of_the_logits_and_samples_those_of_the_prior():
    model, variables = started()
    n = 20_000
    batch = ae.Batch(np.repeat(X[:1], n, 0), np.repeat(X[:1], n, 0))
    code = jax.jit(lambda key: model.bind(variables)(batch, key).code)(jax.random.key(2))
    assert np.array_equal(code.z, np.eye(CLASSES)[np.asarray(code.indices)])
    _, q = by_hand(model, variables)
    sampled = model.bind(variables).sample_latent(jax.random.key(3), n)
    for indices, log_p in ((code.indices, q[0]), (sampled, model_prior(variables)[0])):
        number = np.asarray(indices) @ CLASSES ** np.arange(LATENTS - 1, -1, -1)
        share = np.bincount(number, minlength=len(ALL)) / n
        assert np.all(np.abs(share - np.exp(log_p)) < 4.5 * np.sqrt(np.exp(log_p) / n))
    chosen = np.asarray(code.logits)[0][range(LATENTS), np.asarray(code.indices)[0]]
    assert float(code.log_q()[0]) == pytest.approx(chosen.sum(), rel=1e-5)


def test_the_gradient_is_that_of_the_softmax_and_colder_when_the_schedule_says_so():
    """Fails if the schedule is not read at the step, or if the soft z reaches the decoder."""
    schedule = optax.linear_schedule(2.0, 0.2, 10)
    module = ae.GumbelSoftmax(1, 3, temperature=schedule)
    features = jnp.asarray([[0.4, 0.1, -0.3]])
    variables = {"params": {"logits": {"kernel": jnp.eye(3), "bias": jnp.zeros(3)}}}

    def first(features, step):
        given = ae.contracts.Given(step=step)
        return module.apply(variables, features, None, given).z[0, 0, 0]

    run = jax.jit(jax.value_and_grad(first))
    for step, temperature in ((0, 2.0), (10, 0.2)):
        value, slope = run(features, step)
        assert value == 1.0
        soft = np.asarray(jax.nn.softmax(features[0] / temperature))
        expected = soft[0] * (np.eye(3)[0] - soft) / temperature
        np.testing.assert_allclose(slope[0], expected, atol=1e-6)


def test_too_many_codes_and_other_latents_are_refused():
    model, variables = started()
    with pytest.raises(ae.UserError, match="more than 100000"):
        evaluation.enumerated(model, variables, X, 1000)
    with pytest.raises(ae.UserError, match="prior of integer codes"):
        evaluation.enumerated(kinds.variational(), variables, X, 3)
    with pytest.raises(ae.UserError, match="stick the landing"):
        model.bind(variables).posterior(ae.Batch(X, X)).log_q(True)
    with pytest.raises(ae.UserError, match="temperature = 0"):
        ae.GumbelSoftmax(2, 3, temperature=0)
