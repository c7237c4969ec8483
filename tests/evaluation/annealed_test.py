"""Tests of annealed importance sampling on a model whose log p(x) is known exactly."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax as ae
from aejax import evaluation
from aejax.evaluation import Walk, chains
from aejax.evaluation.annealed import _lower
from aejax.evaluation.batches import Static
from tests import kinds
from tests.evaluation.cases import linear_gaussian

KEY = jax.random.key(3)
CASE = linear_gaussian(examples=20, latents=3, size=4)
WALK = Walk(chains=8, temperatures=60, leapfrogs=4, step=0.3)


def exact(target):
    """Computes log p(x) of the linear-Gaussian model from its decoder alone."""
    output = CASE.variables["params"]["decoder"]["output"]
    weight, bias = (np.asarray(output[name], np.float64) for name in ("kernel", "bias"))
    covariance = weight.T @ weight + 0.25 * np.eye(4)
    apart = target - bias
    square = np.einsum("ni,ij,nj->n", apart, np.linalg.inv(covariance), apart)
    return -0.5 * (square + np.linalg.slogdet(2 * np.pi * covariance)[1])


def test_the_bounds_bracket_the_exact_value():
    """Fails without the logarithm of the number of chains, or if weights are computed before moves
    on the way down.

    Fails also if the chains do not move: the gap is then 5 nats or more.
    """
    found = evaluation.bidirectional(CASE.model, CASE.variables, KEY, WALK, examples=400)
    truth = exact(found.target)
    below, above = truth - found.lower, found.upper - truth
    assert below.mean() > -3 * below.std() / 400**0.5
    assert above.mean() > -3 * above.std() / 400**0.5
    assert abs(below.mean()) < 0.1
    assert abs(above.mean()) < 0.1
    assert found.gap == pytest.approx(np.mean(below + above), abs=1e-4)
    assert found.target.shape == (400, 4)


def test_the_way_down_starts_at_the_latents_that_the_data_came_from():
    """With a walk that hardly moves, the mean upper bound is minus the entropy of the noise.

    The bound is then log p(x | z) at the latents that the data came from. Fails if the way down
    starts at other draws of the prior.
    """
    still = Walk(chains=2, temperatures=2, leapfrogs=1, step=1e-6)
    found = evaluation.bidirectional(CASE.model, CASE.variables, KEY, still, examples=400)
    entropy = 4 * 0.5 * (np.log(2 * np.pi * 0.25) + 1)
    assert found.upper.mean() == pytest.approx(-entropy, abs=4 * 2**0.5 / 400**0.5)


def test_given_data_is_evaluated_without_the_encoder():
    """The encoder's parameters are spoiled first. Fails if chains start at the posterior."""
    spoiled = jax.tree.map(lambda a: a, CASE.variables)
    params = {**spoiled["params"], "bottleneck": jax.tree.map(jnp.zeros_like,
              spoiled["params"]["bottleneck"])}  # fmt: skip
    found = evaluation.annealed(CASE.model, {"params": params, "memory": {}}, CASE.data, KEY, WALK)
    apart = found.log_prob - CASE.log_prob
    assert abs(apart.mean()) < 3 * apart.std() / 20**0.5
    assert apart.std() < 0.4 < 0.5 * CASE.log_prob.std()
    assert found.acceptance.mean() == pytest.approx(WALK.accept, abs=0.15)
    assert np.all((found.effective_sample_size > 1) & (found.effective_sample_size < 8.001))


def test_weights_are_unbiased_however_few_the_temperatures():
    """E w is p(x) on the way up and 1 / p(x) on the way down, within four standard errors.

    The model is so easy that no weight is far from the others. Fails if proposals are always
    accepted, if the momentum's energy is left out, or if weights are computed before moves on the
    way down.
    """
    case = linear_gaussian(examples=3, latents=1, size=2)
    walk = Walk(chains=20_000, temperatures=3, leapfrogs=2, step=0.9)
    batch = next(case.data.batches(3))

    @kinds.optimised
    def one(batch, z, key):
        density = chains.density(case.model, case.variables, batch, walk.chains)
        a, b, c = jax.random.split(key, 3)
        steps = jnp.full(walk.temperatures, walk.step)
        up, kept = chains.up(density, walk, b, density.draw(a), steps)
        return up, chains.down(density, walk, c, z, steps), kept

    for i in range(3):
        single = jax.tree.map(lambda a, i=i: a[i : i + 1], batch)
        noise = np.random.default_rng(i).normal(size=(walk.chains, 1))
        z = jnp.asarray(case.mean[i] + case.std * noise, jnp.float32)
        up, down, kept = one(single, z, jax.random.fold_in(KEY, i))
        assert kept < 0.97
        for log_weight in (np.float64(up) - case.log_prob[i], np.float64(down) + case.log_prob[i]):
            weight = np.exp(log_weight)
            error = weight.std() / walk.chains**0.5
            assert error < 0.01
            assert abs(weight.mean() - 1) < 4 * error


@pytest.mark.slow
def test_weights_are_unbiased_where_the_steps_are_tuned():
    """E w = p(x) within three standard errors, although the first step is bad and a short walk
    tunes it.

    Fails if the chains that tune the step start where the weighted chains do, which gives 0.005 too
    much, 9 standard errors.
    """
    case = linear_gaussian(examples=3, latents=1, size=2)
    copies = 100_000
    many = jax.tree.map(lambda a: jnp.repeat(a[1:2], copies, axis=0), next(case.data.batches(3)))
    walk, index = Walk(1, 30, 1, 4.0), jnp.arange(copies)
    lower = kinds.optimised(functools.partial(_lower, Static(case.model), walk))
    found, _, _ = lower(case.variables, KEY, many, index)
    weight = np.exp(np.float64(found) - case.log_prob[1])
    assert abs(weight.mean() - 1) < 3 * weight.std() / copies**0.5


def test_the_effective_sample_size_of_one_temperature_is_known():
    """Weights are p(x | z) of prior draws, so (E w)^2 / E w^2 has a closed form.

    w = N(x; W z + b, s^2), and w^2 is N(x; W z + b, s^2 / 2) times (4 pi s^2)^(-D / 2). Fails if
    the square root of the effective sample size is returned.
    """
    case = linear_gaussian(examples=3, latents=1, size=2)
    output = case.variables["params"]["decoder"]["output"]
    weight, bias = (np.asarray(output[name], np.float64) for name in ("kernel", "bias"))
    variance, apart = 0.25, case.data.x - bias

    def log_normal(covariance):
        square = np.einsum("ni,ij,nj->n", apart, np.linalg.inv(covariance), apart)
        return -0.5 * (square + np.linalg.slogdet(2 * np.pi * covariance)[1])

    spread, noise = weight.T @ weight, variance * np.eye(2)
    log_square = log_normal(spread + noise / 2) - np.log(4 * np.pi * variance)
    share = np.exp(2 * log_normal(spread + noise) - log_square)
    walk = Walk(chains=20_000, temperatures=1, leapfrogs=1)
    found = evaluation.annealed(case.model, case.variables, case.data, KEY, walk)
    np.testing.assert_allclose(found.log_prob, case.log_prob, atol=0.05)
    np.testing.assert_allclose(found.effective_sample_size / walk.chains, share, rtol=0.05)


def test_temperatures_rise_from_zero_to_one():
    points = chains.temperatures(50)
    assert points[0] == 0
    assert points[-1] == 1
    assert np.all(np.diff(points) > 0)
    assert np.diff(points)[0] < 0.3 * np.diff(points)[25]


def test_steps_follow_the_share_that_is_kept():
    """The first step is far too large, or far too small.

    Fails if the adaptation has the wrong sign.
    """
    batch = next(CASE.data.batches(1))
    sizes = []
    for step in (0.01, 5.0):
        walk = Walk(chains=16, temperatures=300, leapfrogs=5, step=step)
        density = chains.density(CASE.model, CASE.variables, batch, walk.chains)
        tuned = kinds.optimised(lambda k, d=density, w=walk: chains.tuned(d, w, k))(KEY)
        sizes.append(np.asarray(tuned)[-100:].mean())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.3)
    assert 0.05 < sizes[0] < 2


@pytest.mark.parametrize(
    ("walk", "said"),
    [
        (Walk(chains=0), "chains is 0"),
        (Walk(temperatures=0), "temperatures is 0"),
        (Walk(leapfrogs=0), "leapfrogs is 0"),
        (Walk(step=0.0), "step=0.0"),
    ],
)
def test_refusals(walk, said):
    with pytest.raises(ae.UserError, match=said):
        evaluation.annealed(CASE.model, CASE.variables, CASE.data, KEY, walk)
    with pytest.raises(ae.UserError, match="prior"):
        evaluation.annealed(CASE.model.clone(prior=None), CASE.variables, CASE.data, KEY)
