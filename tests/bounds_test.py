"""Tests of bounds of several draws: values, and gradients against quadrature on a linear model."""

from __future__ import annotations

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax import bounds
from aejax.evaluation import chains
from tests import kinds
from tests.evaluation.cases import linear_gaussian

SAMPLED, STUCK = ae.elbo(rate=ae.losses.rate()), ae.elbo(rate=ae.losses.rate(stick=True))
NOISE = 0.5  # the deviation of linear_gaussian's likelihood
CASE = linear_gaussian(0.6, 1.3, examples=3, latents=1, size=3)
BATCH = next(CASE.data.batches(3))


def cost(draws=12, size=5):
    return jnp.asarray(np.random.default_rng(0).normal(80.0, 4.0, (draws, size)), jnp.float32)


def test_miwae_joins_iwae_and_the_elbo():
    """Fails if the softmax runs over the groups, as in pythae's MIWAE, or with log of all K
    draws.
    """
    one, many = bounds.miwae(1).reduce(cost()), bounds.miwae(12).reduce(cost())
    np.testing.assert_allclose(one, bounds.iwae.reduce(cost()), rtol=1e-5)
    np.testing.assert_allclose(many, bounds.mean.reduce(cost()), rtol=1e-5)
    exact = np.asarray(cost(), np.float64).reshape(3, 4, 5)
    exact = -np.log(np.exp(-exact).mean(1)).mean(0)
    np.testing.assert_allclose(bounds.miwae(3).reduce(cost()), exact, rtol=1e-6)


def test_ciwae_lies_between():
    """Fails if beta is the weight of the other bound."""
    iwae, mean = bounds.iwae.reduce(cost()), bounds.mean.reduce(cost())
    found = bounds.ciwae(0.25).reduce(cost())
    np.testing.assert_allclose(found, 0.25 * mean + 0.75 * iwae, rtol=1e-6)
    np.testing.assert_allclose(bounds.ciwae(0.0).reduce(cost()), iwae, rtol=1e-6)


@pytest.mark.parametrize("bound", [bounds.iwae, bounds.dreg, bounds.piwae(3)])
def test_the_cost_is_the_bound_itself(bound):
    """Fails if the cost is -sum w log w, as in pythae, which is lower by up to log K."""
    exact = -np.log(np.exp(-np.asarray(cost(), np.float64)).mean(0))
    np.testing.assert_allclose(bound.reduce(cost()), exact, rtol=1e-6)


def test_piwae_has_iwaes_gradient_and_regrades_within_groups():
    """Fails without the floor on a group's share, where its weights vanish in float32."""
    wide = cost().at[4:8].add(300.0)
    for values in (cost(), wide):
        iwae, piwae, miwae = (
            jax.grad(lambda c, b=b: jnp.sum(b.reduce(c)))(values)
            for b in (bounds.iwae, bounds.piwae(3), bounds.miwae(3))
        )
        np.testing.assert_allclose(piwae, iwae, rtol=1e-4, atol=1e-19)
        np.testing.assert_allclose(bounds.piwae(3).regrade(piwae, 0.0), miwae, rtol=1e-4)


def gradient(objective, draws, bound, params=None):
    """Returns a function from a key to the gradient, which a step of descent with rate 1
    subtracts.
    """
    learner = ae.learner(CASE.model, objective, optax.sgd(1.0), draws=draws, bound=bound)
    params = CASE.variables["params"] if params is None else params
    state = ae.State(jnp.zeros((), jnp.int32), jax.random.key(0), params, {}, ())
    state = state._replace(opt=optax.sgd(1.0).init(params))

    def one(key):
        after, metrics = learner.step(state._replace(key=key), BATCH)
        return jax.tree.map(jnp.subtract, params, after.params), metrics["loss"]

    return jax.jit(one)


def samples(objective, draws, bound, params=None, n=8000):
    """Computes the gradients of n keys, part -> f64[n, size]."""
    one = gradient(objective, draws, bound, params)
    keys = jax.random.split(jax.random.key(11), n)
    grads, _ = kinds.optimised(jax.vmap(one))(keys)
    return {part: flat(tree, n) for part, tree in grads.items()}


def flat(tree, n=1):
    leaves = [np.asarray(leaf, np.float64).reshape(n, -1) for leaf in jax.tree.leaves(tree)]
    return np.concatenate(leaves, axis=1)


def expected(params, draws, beta=1.0):
    """Computes the expected IWAE bound over K draws of one latent, by Gauss-Hermite quadrature.

    With beta, the log-ratio is log p(x | z) - beta (log q(z | x) - log p(z)).
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    weights = weights / weights.sum()
    grid = jnp.asarray(list(itertools.product(nodes, repeat=draws)), jnp.float32)
    product = np.asarray(list(itertools.product(weights, repeat=draws))).prod(axis=1)

    def log_normal(x, mean, std):
        return -0.5 * ((x - mean) / std) ** 2 - jnp.log(std) - 0.5 * np.log(2 * np.pi)

    def one(x):
        inner, outer = params["bottleneck"]["statistics"], params["decoder"]["output"]
        mean, log_std = inner["kernel"].T @ x + inner["bias"]
        z = mean + jnp.exp(log_std) * grid  # [G, K]
        image = z[:, :, None] * outer["kernel"][None] + outer["bias"][None, None]
        explained = jnp.sum(log_normal(x[None, None], image, jnp.float32(NOISE)), axis=-1)
        rate = log_normal(z, mean, jnp.exp(log_std)) - log_normal(z, 0.0, jnp.float32(1.0))
        ratio = explained - beta * rate
        return -jnp.sum(jnp.asarray(product) * jnp.log(jnp.mean(jnp.exp(ratio), axis=1)))

    return jnp.mean(jax.vmap(one)(BATCH.x))


@functools.cache
def exact(draws, beta=1.0):
    with jax.numpy_rank_promotion("allow"):
        both = jax.jit(jax.value_and_grad(expected), static_argnums=(1, 2))
        value, grads = both(CASE.variables["params"], draws, beta)
    return float(value), {part: flat(tree) for part, tree in grads.items()}


def score(objective, draws, bound, reference, beta=1.0, parts=("bottleneck", "decoder")):
    """Returns the largest deviation from the exact gradient over all parameters, in standard
    errors.
    """
    found, (_, grads) = samples(objective, draws, bound), exact(reference, beta)
    largest = 0.0
    for part, one in ((part, found[part]) for part in parts):
        spread = one.std(0) / len(one) ** 0.5
        apart = np.abs(one.mean(0) - grads[part][0])
        largest = max(largest, np.max(apart / np.maximum(spread, 1e-6)))
    return largest


@pytest.mark.parametrize(
    ("objective", "draws", "bound"),
    [
        (STUCK, 1, bounds.mean),
        (STUCK, 2, bounds.dreg),
        (STUCK, 3, bounds.dreg),
    ],
    ids=["stl", "dreg-2", "dreg-3"],
)
def test_gradients_agree_with_quadrature(objective, draws, bound):
    """Mean gradients agree within three standard errors.

    Fails if w stands in place of w squared (see the next test), if the rate does not stick the
    landing under dreg, or without log K.
    """
    assert score(objective, draws, bound, draws) < 3


@pytest.mark.parametrize("beta", [0.5, lambda step: 0.1 + 0.0 * step], ids=["half", "schedule"])
def test_the_rate_s_weight_is_the_share_of_the_score_that_dreg_replaces(beta):
    """Fails if the weight is w squared whatever beta is: 30 standard errors at beta = 0.5."""
    now = beta if isinstance(beta, float) else 0.1
    assert score(ae.elbo(beta, ae.losses.rate(stick=True)), 3, bounds.dreg, 3, now) < 3


def test_bounds_that_a_sticking_rate_leaves_unbiased():
    """With four draws, `mean` has the ELBO's gradient, and piwae(2) gives the encoder IWAE's of
    two.

    Fails if piwae keeps the weights of its groups when the rate sticks the landing.
    """
    assert score(STUCK, 4, bounds.mean, 1) < 3
    assert score(STUCK, 4, bounds.piwae(2), 2, parts=("bottleneck",)) < 3
    assert score(STUCK, 4, bounds.piwae(2), 4, parts=("decoder",)) < 3


def test_quadrature_sees_bias():
    """A rate that sticks the landing biases IWAE, so the learner refuses the pair."""
    untapped = ae.Bound(bounds.iwae.reduce, lambda w, _: w)
    assert score(STUCK, 2, untapped, 2) > 10
    assert score(SAMPLED, 2, ae.Bound(bounds.iwae.reduce, lambda w, _: w * w), 2) > 10
    with pytest.raises(ae.UserError, match="sticks the landing"):
        ae.learner(CASE.model, STUCK, optax.sgd(1.0), draws=2, bound=bounds.iwae)
    with pytest.raises(ae.UserError, match="needs a rate that sticks the landing"):
        ae.learner(CASE.model, SAMPLED, optax.sgd(1.0), draws=2, bound=bounds.dreg)


def test_the_reported_loss_is_the_bound():
    """Its mean over keys is the bound by quadrature, within 3 standard errors.

    Fails without log K.
    """
    for draws in (1, 3):
        one = gradient(SAMPLED, draws, bounds.iwae if draws > 1 else bounds.mean)
        keys = jax.random.split(jax.random.key(4), 8000)
        found = np.asarray(kinds.optimised(jax.vmap(one))(keys)[1], np.float64)
        assert abs(found.mean() - exact(draws)[0]) < 3 * found.std() / len(found) ** 0.5
    assert exact(1)[0] - exact(3)[0] > 0.05
    assert exact(3)[0] > -CASE.log_prob.mean()


def test_sticking_the_landing_is_silent_at_the_exact_posterior():
    """The gradient is 0 for every draw (Roeder et al. 2017).

    Fails if log q's parameters get one.
    """
    params = linear_gaussian(examples=3, latents=1, size=3).variables["params"]
    stuck = gradient(STUCK, 1, bounds.mean, params)(jax.random.key(0))[0]["bottleneck"]
    plain = gradient(SAMPLED, 1, bounds.mean, params)(jax.random.key(0))[0]["bottleneck"]
    assert np.max(np.abs(flat(stuck))) < 1e-4
    assert np.max(np.abs(flat(plain))) > 1e-2


def test_piwae_trains_the_decoder_as_iwae_and_the_encoder_as_miwae():
    """This holds for each key. Fails if the encoder's weights are normalised over all draws."""
    key = jax.random.key(5)
    iwae, miwae, piwae = (
        gradient(SAMPLED, 6, bound)(key)
        for bound in (bounds.iwae, bounds.miwae(3), bounds.piwae(3))
    )
    assert float(piwae[1]) == pytest.approx(float(iwae[1]), rel=1e-6)
    chex.assert_trees_all_close(piwae[0]["decoder"], iwae[0]["decoder"], rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(piwae[0]["bottleneck"], miwae[0]["bottleneck"], rtol=1e-4)
    assert np.max(np.abs(flat(iwae[0]["bottleneck"]) - flat(miwae[0]["bottleneck"]))) > 1e-2


def test_miwae_trains_as_the_bounds_it_joins():
    """MIWAE(1, K) = IWAE(K) and MIWAE(M, 1) = ELBO in the learner, with their gradients."""
    key = jax.random.key(6)
    for one, other in ((bounds.miwae(1), bounds.iwae), (bounds.miwae(4), bounds.mean)):
        left, right = gradient(SAMPLED, 4, one)(key), gradient(SAMPLED, 4, other)(key)
        assert float(left[1]) == pytest.approx(float(right[1]), rel=1e-5)
        chex.assert_trees_all_close(left[0], right[0], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_dreg_is_the_quieter_after_training():
    """On a model trained by IWAE, dreg's gradient has less than half of IWAE's variance.

    Near the initialisation it need not have.
    """
    learner = ae.learner(CASE.model, SAMPLED, optax.adam(0.02), draws=4, bound=bounds.iwae)
    state = jax.jit(learner.init)(jax.random.key(1), BATCH)
    trained = kinds.optimised(
        lambda s: jax.lax.fori_loop(0, 400, lambda _, s: learner.step(s, BATCH)[0], s)
    )
    state = trained(state)
    iwae = samples(SAMPLED, 4, bounds.iwae, state.params, 2000)["bottleneck"]
    dreg = samples(STUCK, 4, bounds.dreg, state.params, 2000)["bottleneck"]
    assert dreg.var(0).sum() < 0.5 * iwae.var(0).sum()


def test_missing_values_are_left_out_by_the_mask_even_as_nan():
    """The mask acts on loss, gradient and importance weights. Fails if NaN is multiplied by 0."""
    learner = ae.learner(CASE.model, SAMPLED, optax.sgd(0.1), draws=4, bound=bounds.miwae(2))
    mask = np.float32([[1, 0, 1], [0, 1, 1], [1, 1, 1]])
    start, step, found = jax.jit(learner.init), jax.jit(learner.step), []
    for other in (np.nan, 5.0):
        target = jnp.where(mask == 0, other, BATCH.target)
        batch = BATCH._replace(target=target, mask=jnp.asarray(mask))
        state, metrics = step(start(jax.random.key(0), batch), batch)
        one = jax.tree.map(lambda a: a[:1], batch)
        density = chains.density(CASE.model, CASE.variables, one, 2)
        found.append((metrics, state.params, density.log_likelihood(jnp.ones((2, 1)))))
    chex.assert_trees_all_close(*found, rtol=1e-6)
    chex.assert_tree_all_finite(found[0])
    wrong = BATCH._replace(target=BATCH.target * jnp.nan, mask=jnp.asarray(mask))
    spoiled = step(start(jax.random.key(0), wrong), wrong)[1]
    assert jnp.isnan(spoiled["loss"])  # a NaN that the mask does not leave out shows


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: bounds.miwae(0), "groups = 0"),
        (lambda: bounds.piwae(-1), "groups = -1"),
        (lambda: bounds.miwae(2.5), "groups = 2.5"),
        (lambda: bounds.ciwae(1.5), "beta = 1.5"),
        (lambda: bounds.miwae(5).reduce(cost()), "12 draws cannot be divided into 5 equal groups"),
        (lambda: bounds.piwae(5).reduce(cost()), "12 draws cannot be divided into 5 equal groups"),
    ],
)
def test_refusals(act, said):
    with pytest.raises(ae.UserError, match=said):
        act()
