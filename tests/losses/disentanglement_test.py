"""Tests of total correlation, DIP, FactorVAE and MMD, against brute force in numpy."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

import aejax as ae
from aejax import losses
from aejax.bottlenecks import GaussianCode
from aejax.losses.disentanglement import permuted, stratified_weights
from aejax.losses.divergence import discrepancy
from tests import kinds

B, L = 7, 3
random = np.random.default_rng(1)
MEAN, LOG_STD = random.normal(size=(B, L)), random.normal(size=(B, L)) * 0.3 - 0.7
Z = MEAN + np.exp(LOG_STD) * random.normal(size=(B, L))
MODEL = SimpleNamespace(prior=ae.priors.Standard(), posterior=None)


def forward(rows=slice(None), key=None):
    code = GaussianCode(*(jnp.asarray(a[rows], jnp.float32) for a in (Z, MEAN, LOG_STD)))
    x = jnp.zeros((code.z.shape[0], 2))
    return ae.Forward(ae.Batch(x, x), x, code, x, jnp.zeros((), jnp.int32), key)


def log_normal(z, mean, log_std):
    return -0.5 * ((z - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)


def brute_force(weights=None):
    """Computes log q(z_i), sum_j log q(z_ij) and log q(z_i | x_i), f64[B] each."""
    weights = np.full((B, B), 1 / B) if weights is None else weights
    joint, marginals, own = np.zeros(B), np.zeros(B), np.zeros(B)
    for i in range(B):
        own[i] = log_normal(Z[i], MEAN[i], LOG_STD[i]).sum()
        densities = [np.exp(log_normal(Z[i], MEAN[n], LOG_STD[n])) for n in range(B)]
        joint[i] = np.log(sum(weights[i, n] * densities[n].prod() for n in range(B)))
        for j in range(L):
            marginals[i] += np.log(sum(weights[i, n] * densities[n][j] for n in range(B)))
    return joint, marginals, own


@pytest.mark.parametrize("examples", [B, 10 * B])
def test_parts_of_the_kl_against_brute_force(examples):
    """With N = B all weights are 1 / N.

    Fails if the diagonal's weight is in column 0, as in four libraries, with the even-odd weights
    of the paper's listing, or without log N.
    """
    other = (examples - 1) / (examples * (B - 1))
    weights = np.where(np.eye(B, dtype=bool), 1 / examples, other)
    joint, marginals, own = brute_force(None if examples == B else weights)
    prior = log_normal(Z, 0.0, 0.0).sum(1)
    found = [
        term(examples)(MODEL, forward())
        for term in (losses.mutual_information, losses.total_correlation, losses.dimension_wise_kl)
    ]
    np.testing.assert_allclose(found[0], own - joint, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], joint - marginals, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[2], marginals - prior, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sum(found), losses.rate()(MODEL, forward()), rtol=1e-4, atol=1e-5)


def test_stratified_weights():
    """The diagonal is exactly 1 / N, and the weights of a row sum to one."""
    weights = np.exp(np.asarray(stratified_weights(5, 60_000), np.float64))
    np.testing.assert_allclose(np.diag(weights), np.full(5, 1 / 60_000), rtol=1e-6)
    np.testing.assert_allclose(weights.sum(1), np.ones(5), rtol=1e-6)
    assert np.ptp(weights[~np.eye(5, dtype=bool)]) == 0
    np.testing.assert_allclose(np.exp(stratified_weights(5, 5)), np.full((5, 5), 0.2), rtol=1e-6)


def test_the_mixture_is_unbiased_over_batches():
    """Averaged over all batches with example 0, the estimate of q(z_0) is that of brute force."""
    joint, _, own = brute_force()
    estimates = []
    information_of = jax.jit(lambda pass_: losses.mutual_information(B)(MODEL, pass_))
    for i in range(1, B):
        for j in range(i + 1, B):
            information = information_of(forward(np.array([0, i, j])))
            estimates.append(np.exp(own[0] - float(information[0])))
    assert np.mean(estimates) == pytest.approx(np.exp(joint[0]), rel=1e-4)


@pytest.mark.parametrize("size", [1, B + 1])
def test_batches_that_cannot_stand_for_the_data_are_refused(size):
    with pytest.raises(ae.UserError, match=f"a batch of {size} cannot represent {B}"):
        stratified_weights(size, B)


def test_dip_against_numpy():
    """Fails if the covariance is of samples, the diagonal counts as off-diagonal, or I and II
    are swapped.
    """
    for term, extra in ((losses.dip_i, 0.0), (losses.dip_ii, np.exp(2 * LOG_STD).mean(0))):
        covariance = np.cov(MEAN.T, bias=True) + np.diag(np.broadcast_to(extra, L))
        off = np.square(covariance - np.diag(np.diag(covariance))).sum()
        diagonal = np.square(np.diag(covariance) - 1).sum()
        found = term(3.0)(MODEL, forward())
        np.testing.assert_allclose(found, np.full(B, off + 3.0 * diagonal), rtol=1e-5)


@pytest.mark.parametrize(
    "term",
    [
        losses.mutual_information(50),
        losses.total_correlation(50),
        losses.dimension_wise_kl(50),
        losses.dip_i(),
        losses.dip_ii(),
    ],
    ids=lambda term: term.__name__,
)
def test_gradients_are_those_of_the_values(term):
    """They equal finite differences.

    Fails if samples, means or deviations are under a stop_gradient.
    """

    def value(code):
        return jnp.sum(term(MODEL, forward()._replace(code=code)))

    check_grads(jax.jit(value), (forward().code,), 1, ["rev"], atol=0.02, rtol=0.02, eps=1e-2)


def factor_model(size=1):
    base = kinds.variational(latents=L)
    critic = ae.nets.MLP((8,), shape=(size,), activation=jax.nn.leaky_relu)
    return base.clone(parts={"critic": critic})


FACTOR = {"tc": (5.0, losses.density_ratio()), "critic": (1.0, losses.critic())}


def moved(objective, names):
    """Returns which parts change in one step of gradient descent."""
    whole = ae.merge(objective, ae.watch(**{n: t for n, (_, t) in FACTOR.items()}))
    learner = ae.learner(factor_model(), whole, optax.sgd(0.1))
    state = kinds.begun(learner, kinds.batch())
    after, _ = jax.jit(learner.step)(state, kinds.batch())
    changed = {
        part: any(kinds.raw(a) != kinds.raw(b) for a, b in [(state.params[part], value)])
        for part, value in after.params.items()
    }
    assert set(names) <= set(changed)
    return {part for part, different in changed.items() if different}


def test_each_side_of_the_game_trains_its_own_parts():
    """Fails without `frozen`, as the VAE would train its critic.

    Fails also without the stop_gradient of the codes, as the critic would train the encoder.
    """
    renamed = {"only": (1.0, losses.density_ratio())}
    assert moved(renamed, ["parts_critic"]) == {"encoder", "bottleneck"}
    assert moved({"only": (1.0, losses.critic())}, ["encoder"]) == {"parts_critic"}
    assert moved({"a": (1.0, losses.distortion)}, []) == {"encoder", "bottleneck", "decoder"}


def test_the_critic_learns_the_total_correlation():
    """For correlated normals it is -log(1 - r^2) / 2.

    Fails if the labels or the sign are swapped.
    """
    r, n = 0.9, 2000
    both = np.random.default_rng(0).multivariate_normal([0, 0], [[1, r], [r, 1]], n)
    z = jnp.asarray(both, jnp.float32)
    code = GaussianCode(z, z, z)
    critic = ae.nets.MLP((32, 32), shape=(1,))
    pass_ = ae.Forward(ae.Batch(z, z), z, code, z, jnp.zeros((), jnp.int32), None)
    tx = optax.adam(1e-2)

    def bound(params):
        return SimpleNamespace(parts={"critic": critic.bind({"params": params})})

    def step(i, carry):
        params, opt = carry
        key = jax.random.fold_in(jax.random.key(3), i)

        def loss(p):
            return jnp.mean(losses.critic()(bound(p), pass_._replace(key=key)))

        updates, opt = tx.update(jax.grad(loss)(params), opt)
        return optax.apply_updates(params, updates), opt

    params = critic.init(jax.random.key(0), z)["params"]
    trained = kinds.optimised(lambda p: jax.lax.fori_loop(0, 300, step, (p, tx.init(p))))
    params, _ = trained(params)
    found = float(jnp.mean(losses.density_ratio()(bound(params), pass_)))
    assert found == pytest.approx(-0.5 * np.log(1 - r**2), abs=0.1)


def test_the_critic_loses_what_a_classifier_of_even_classes_does():
    """All logits are 1. Fails if the two sides are summed, or have different weights."""
    model = SimpleNamespace(parts={"critic": lambda z: jnp.ones((len(z), 1))})
    expected = np.mean(np.logaddexp(0.0, [-1.0, 1.0]))
    np.testing.assert_allclose(losses.critic()(model, forward()), np.full(B, expected), rtol=1e-6)


def test_permuted_keeps_columns_and_breaks_rows():
    """Fails if two columns move together, or if a column gets values of another."""
    for key in (None, jax.random.key(0)):
        z = jnp.arange(60.0).reshape(20, 3)
        found = np.asarray(permuted(key, z))
        assert np.array_equal(np.sort(found, axis=0), z)
        moved = (found - np.arange(3)) / 3  # the row from which each value comes
        assert len(np.unique(moved, axis=1).T) == 3


def test_a_missing_or_wide_critic_is_refused():
    model = SimpleNamespace(parts={})
    with pytest.raises(ae.UserError, match="no net named 'critic'"):
        losses.critic()(model, forward())
    learner = ae.learner(factor_model(2), FACTOR, optax.sgd(0.1))
    with pytest.raises(ae.UserError, match="one logit"):
        jax.eval_shape(learner.init, jax.random.key(0), kinds.batch())


@pytest.mark.parametrize(
    "kernel", [losses.inverse_multiquadric((0.5, 2.0)), losses.gaussian_kernel(0.7)]
)
def test_the_discrepancy_against_loops(kernel):
    """Fails if the diagonal counts, or if the cross term is divided by n (n - 1)."""
    one, other = Z, random.normal(size=(B, L))

    def k(a, b):
        squares = jnp.full((1, 1), np.square(a - b).sum())
        return float(kernel(squares, L)[0, 0])

    apart = [(i, j) for i in range(B) for j in range(B) if i != j]
    same = sum(k(one[i], one[j]) + k(other[i], other[j]) for i, j in apart) / (B * (B - 1))
    cross = np.mean([k(a, b) for a in one for b in other])
    found = discrepancy(jnp.asarray(one, jnp.float32), jnp.asarray(other, jnp.float32), kernel)
    assert float(found) == pytest.approx(same - 2 * cross, abs=1e-5)


def test_kernels_are_the_papers():
    """Fails if a width or a number of latents is counted twice or not at all."""
    squares = jnp.asarray([[0.0, 3.0]])
    expected = [[1.0, np.exp(-3.0 / 4)]]
    np.testing.assert_allclose(losses.gaussian_kernel()(squares, 4), expected, rtol=1e-6)
    found = losses.inverse_multiquadric((1.0, 0.5))(squares, 4)
    np.testing.assert_allclose(found, [[2.0, 8 / 11 + 4 / 7]], rtol=1e-6)


def test_mmd_is_zero_for_codes_of_the_prior_and_positive_for_others():
    """The mean is 0 within four standard errors. Fails if the estimate is the biased one."""
    model = ae.Autoencoder(
        ae.nets.Identity(), ae.Gaussian(2), ae.nets.MLP((), shape=(2,)), ae.priors.Standard()
    )

    @jax.jit
    def one(key, shift):
        own, other = jax.random.split(key)
        z = jax.random.normal(own, (16, 2)) + shift
        code = GaussianCode(z, z, z)
        pass_ = ae.Forward(ae.Batch(z, z), z, code, z, jnp.zeros((), jnp.int32), other)
        value = losses.mmd()(model.bind({}), pass_)
        return value[0]

    keys = jax.random.split(jax.random.key(0), 400)
    each = jax.jit(jax.vmap(one, (0, None)))
    same = np.asarray(each(keys, 0.0))
    assert abs(same.mean()) < 4 * same.std() / 20
    assert np.asarray(each(keys, 1.0)).mean() > 0.5
    with pytest.raises(ae.UserError, match="with a key"):
        losses.mmd()(model, forward())
    with pytest.raises(ae.UserError, match="2 or more examples"):
        discrepancy(jnp.ones((1, 2)), jnp.ones((1, 2)), losses.gaussian_kernel())
