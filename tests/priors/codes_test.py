"""Tests the prior over integer codes against the sum over all codes, and models that have it."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax import UserError, evaluation
from tests.contract_test import moved

CODES, SHAPE = 3, (2, 2)
PRIOR = ae.priors.Codes(CODES, width=8, layers=2, heads=2)
ALL = np.asarray(list(itertools.product(range(CODES), repeat=4)), np.int32).reshape(-1, *SHAPE)


def started(context=None):
    init = jax.jit(lambda key: PRIOR.init(key, ALL[:2], context, method="log_prob"))
    return moved(init(jax.random.key(0)))


def test_probabilities_of_all_codes_sum_to_one_and_samples_have_them():
    """Fails if a code sees itself or later codes, or if a draw's cache holds other keys than the
    pass over all codes, or another position.
    """
    label = jnp.broadcast_to(jnp.asarray([[0.0, 1.0]]), (len(ALL), 2))
    variables = started(label[:2])
    program = jax.jit(lambda v, z, c: PRIOR.apply(v, z, c, method="log_prob"))
    exact = np.exp(np.asarray(program(variables, ALL, label), np.float64))
    other = np.exp(np.asarray(program(variables, ALL, label[:, ::-1]), np.float64))
    assert abs(other - exact).max() > 1e-3  # the context changes the prior
    assert abs(exact.sum() - 1.0) < 1e-5
    assert exact.max() > 5 * exact.min()  # far from codes that are all as likely
    n = 40_000
    wide = jnp.broadcast_to(label[:1], (n, 2))
    draw = jax.jit(lambda v, k: PRIOR.apply(v, k, n, SHAPE, wide, method="sample"))
    drawn = np.asarray(draw(variables, jax.random.key(1)))
    assert drawn.shape == (n, *SHAPE)
    number = drawn.reshape(n, -1) @ CODES ** np.arange(3, -1, -1)
    share = np.bincount(number, minlength=len(ALL)) / n
    assert np.all(np.abs(share - exact) < 4.5 * np.sqrt(exact / n) + 1e-4)


def test_real_latents_and_contexts_of_another_size_are_refused():
    variables = started(jnp.eye(2))
    with pytest.raises(UserError, match="integer codes"):
        PRIOR.apply(variables, jnp.zeros((1, 4)), jnp.eye(2)[:1], method="log_prob")
    with pytest.raises(UserError, match="context with 3 rows"):
        PRIOR.apply(variables, jax.random.key(0), 3, SHAPE, jnp.eye(2), method="sample")
    with pytest.raises(UserError, match="heads divide"):
        ae.priors.Codes(4, width=6, heads=4)


def model(bottleneck, prior):
    return ae.Autoencoder(
        ae.nets.MLP((16,)),
        bottleneck,
        ae.nets.MLP((16,), shape=6),
        prior,
        ae.likelihoods.Bernoulli(),
    )


@pytest.mark.slow
def test_the_rate_trains_the_prior_alone():
    """The indices carry no gradient. Fails if the rate moves encoder or decoder."""
    x = np.random.default_rng(0).integers(0, 2, (8, 6)).astype(np.float32)
    own = model(
        ae.FiniteScalarQuantised((2, 2), (2,)), ae.priors.Codes(4, width=4, layers=1, heads=1)
    )
    learner = ae.learner(own, {"rate": (1.0, ae.losses.rate())}, optax.sgd(1.0))
    batch = ae.Batch(x, x)

    @jax.jit
    def both(key):
        before = learner.init(key, batch)
        return before.params, learner.step(before, batch)[0].params

    before, after = both(jax.random.key(0))
    changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before, after)
    assert any(jax.tree.leaves(changed["prior"]))
    assert not any(jax.tree.leaves({k: v for k, v in changed.items() if k != "prior"}))


@pytest.mark.slow
@pytest.mark.parametrize(
    "bottleneck",
    [ae.VectorQuantised(4, 2, (2,)), ae.FiniteScalarQuantised((2, 2), (2,))],
    ids=["VQ", "FSQ"],
)
def test_a_quantised_autoencoder_learns_a_prior_and_is_sampled(bottleneck):
    """The rate is -log p(indices), and the sum is a bound, which does not depend on draws.

    Fails if a draw is not lifted to the codebook, or log q is not zero.
    """
    random = np.random.default_rng(0)
    kinds = random.integers(0, 2, (2, 6)).astype(np.float32)
    kinds[1] = 1.0 - kinds[0]
    x = kinds[random.integers(0, 2, 64)]
    own = model(bottleneck, ae.priors.Codes(4, width=8, layers=1, heads=2))
    objective = ae.elbo(rate=ae.losses.rate())
    if isinstance(bottleneck, ae.VectorQuantised):
        objective = ae.merge(objective, {"commitment": (0.25, ae.losses.commitment)})
    learner = ae.chunked(ae.learner(own, objective, optax.adam(1e-2)), 100)
    batches = ae.data.Batches(ae.data.arrays(x)[0], 32, seed=0)
    state = jax.jit(learner.init)(jax.random.key(0), batches[0])
    step = jax.jit(learner.step)
    for t in (0, 100):
        state, metrics = step(state, batches.source(t, 100))
    # Two equally likely vectors need log 2 nats; the prior and the decoder find them.
    assert float(np.asarray(metrics["loss"])[-1]) < 1.5
    variables = learner.variables(state)
    bound = evaluation.elbo(own, variables, ae.Batch(x, x), jax.random.key(0))
    nll = evaluation.nll(own, variables, ae.Batch(x, x), jax.random.key(0), draws=2)
    np.testing.assert_allclose(nll.nll, -bound.elbo, rtol=1e-4)
    drawn = own.bind(variables).sample(jax.random.key(1), 32)
    near = np.asarray(drawn > 0)[:, None] == (kinds > 0)
    assert np.mean(near.all(axis=2).any(axis=1)) > 0.9


def test_priors_of_real_numbers_and_of_codes_are_not_confused():
    x = jnp.zeros((4, 6))
    pairs = (
        (ae.FiniteScalarQuantised((2, 2), (2,)), ae.priors.Standard()),
        (ae.Gaussian(2), ae.priors.Codes(4, width=8)),
    )
    for bottleneck, prior in pairs:
        learner = ae.learner(
            model(bottleneck, prior), ae.elbo(rate=ae.losses.rate()), optax.sgd(0.1)
        )
        with pytest.raises(UserError, match="Categorical with GumbelSoftmax"):
            jax.eval_shape(learner.init, jax.random.key(0), ae.Batch(x, x))
