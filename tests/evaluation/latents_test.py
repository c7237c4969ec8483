"""Tests of latents, KL, active units and reconstruction on a model known exactly."""

import jax
import numpy as np
import pytest

import aejax as ae
from aejax import evaluation
from aejax.types import Batch
from tests.evaluation.cases import Held, Opaque, linear_gaussian

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def case():
    return linear_gaussian(shift=0.5, widen=1.3)


def test_latents_are_the_posterior_means_in_order(case):
    """Fails if latents are sampled, or if the padding of the last batch is kept."""
    found = evaluation.latents(case.model, case.variables, case.data, batch=7)
    assert found.shape == (64, 8)
    np.testing.assert_allclose(found, case.mean + 0.5 * case.std, atol=1e-5)


def test_kl_per_dimension_is_the_formula(case):
    """Fails if examples are summed, or if batches of unequal size are averaged."""
    mean, std = case.mean + 0.5 * case.std, 1.3 * case.std
    expected = np.mean(0.5 * (mean**2 + std**2 - 1.0) - np.log(std), axis=0)
    found = evaluation.kl_per_dimension(case.model, case.variables, case.data, KEY, batch=9)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    rate = evaluation.elbo(case.model, case.variables, case.data, KEY).rate
    assert found.sum() == pytest.approx(rate.mean(), rel=1e-5)


def test_active_units_are_those_whose_mean_varies():
    """Two latents do not depend on x.

    Fails if the posterior's own variance counts, which is never 0.
    """
    case = linear_gaussian()
    kernel = case.variables["params"]["bottleneck"]["statistics"]["kernel"]
    params = {**case.variables["params"]}
    params["bottleneck"] = {
        "statistics": {
            **params["bottleneck"]["statistics"],
            "kernel": kernel.at[:, 2].set(0.0).at[:, 5].multiply(1e-3),
        }
    }
    variables = {"params": params, "memory": {}}
    found = evaluation.active_units(case.model, variables, case.data)
    expected = np.var(case.mean, axis=0)
    expected[2], expected[5] = 0.0, expected[5] * 1e-6
    np.testing.assert_allclose(found.variance, expected, rtol=1e-4, atol=1e-9)
    assert found.count == 6
    assert evaluation.active_units(case.model, variables, case.data, threshold=1e-9).count == 7


def test_reconstruction_is_that_of_the_mean_code(case):
    """Fails if z is sampled, or if errors per element are divided by the batch."""
    decoder = jax.tree.map(np.asarray, case.variables["params"]["decoder"]["output"])
    z = case.mean + 0.5 * case.std
    expected = np.square(case.data.x - (z @ decoder["kernel"] + decoder["bias"]))
    found = evaluation.reconstruction(case.model, case.variables, case.data, batch=11)
    np.testing.assert_allclose(found.squared_error, expected.sum(axis=1), rtol=1e-4)
    np.testing.assert_allclose(found.mean_square, expected.mean(axis=1), rtol=1e-4)

    mask = np.zeros((64, 12), np.float32)
    mask[:, :3] = 1.0
    masked = evaluation.reconstruction(
        case.model, case.variables, Held(case.data.x, mask=mask), batch=11
    )
    np.testing.assert_allclose(masked.mean_square, expected[:, :3].mean(axis=1), rtol=1e-4)


def test_plain_and_sparse_codes_have_latents_too(case):
    x = case.data.x
    batch = Batch(x[:2], x[:2])
    for bottleneck in (ae.Point(5), ae.TopK(16, 3), ae.ReLU(16)):
        model = ae.Autoencoder(ae.nets.Identity(), bottleneck, ae.nets.Dictionary(12))
        variables = jax.jit(model.init)(KEY, batch)
        found = evaluation.latents(model, variables, case.data, batch=7)
        assert found.shape == (64, bottleneck.latents)
        if isinstance(bottleneck, ae.TopK):
            assert np.max(np.sum(found > 0, axis=1)) == 3


def test_a_kl_without_a_closed_form_is_refused(case):
    model = case.model.clone(prior=Opaque())
    with pytest.raises(ae.UserError, match="no closed form"):
        evaluation.kl_per_dimension(model, case.variables, case.data, KEY)
    with pytest.raises(ae.UserError, match="without a prior"):
        evaluation.kl_per_dimension(case.model.clone(prior=None), case.variables, case.data, KEY)


def test_grey_targets_under_a_bernoulli_have_no_likelihood():
    """The cross-entropy is then no likelihood.

    Fails if the name depends on only one of data and likelihood.
    """
    bernoulli, gaussian = ae.likelihoods.Bernoulli(), ae.likelihoods.Gaussian()
    assert evaluation.figure_name("nll", "none", bernoulli) == "bce"
    assert evaluation.figure_name("elbo", "none", bernoulli) == "bce_bound"
    assert evaluation.figure_name("active_units", "none", bernoulli) == "active_units"
    for binarised, likelihood in (("dynamic", bernoulli), ("none", gaussian), ("none", None)):
        assert evaluation.figure_name("nll", binarised, likelihood) == "nll"
        assert evaluation.figure_name("elbo", binarised, likelihood) == "elbo"
