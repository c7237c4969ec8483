"""Tests that the cost which training minimises is the bound itself."""

import jax
import numpy as np
import optax
import pytest

import aejax as ae
from aejax import bounds, losses
from tests.evaluation.cases import linear_gaussian


def _loss(case, bound, draws):
    objective = ae.elbo(rate=losses.rate())
    learner = ae.learner(case.model, objective, optax.sgd(0.0), draws=draws, bound=bound)
    batch = next(case.data.batches(64))
    state = jax.jit(learner.init)(jax.random.key(0), batch)._replace(
        params=case.variables["params"]
    )
    return float(jax.jit(learner.step)(state, batch)[1]["loss"])


@pytest.mark.parametrize("draws", [1, 5, 50])
def test_importance_weighted_cost_is_the_bound(draws):
    """Fails without log K, with the wrong axis, or if the cost is the weighted mean of the
    costs.
    """
    cost = np.random.default_rng(0).normal(100.0, 5.0, (draws, 7)).astype(np.float32)
    exact = -np.log(np.mean(np.exp(-(cost.astype(np.float64) - 100.0)), axis=0)) + 100.0
    np.testing.assert_allclose(bounds.iwae.reduce(cost), exact, rtol=1e-5)
    np.testing.assert_allclose(bounds.mean.reduce(cost), cost.mean(axis=0), rtol=1e-5)


def test_more_draws_tighten_the_bound_towards_the_density():
    """The draws are the same, and the gap is known.

    Fails if the loss is reduced over examples first.
    """
    case = linear_gaussian(0.5, 1.3)
    elbo, iwae = _loss(case, bounds.mean, 50), _loss(case, bounds.iwae, 50)
    assert -case.log_prob.mean() - 0.1 < iwae < elbo - 0.5
    assert _loss(case, bounds.iwae, 2000) == pytest.approx(-case.log_prob.mean(), abs=0.03)


def test_every_draw_at_the_exact_posterior_is_the_density():
    case = linear_gaussian()
    for bound in (bounds.mean, bounds.iwae):
        assert _loss(case, bound, 3) == pytest.approx(-case.log_prob.mean(), abs=1e-3)
