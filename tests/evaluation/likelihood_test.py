"""Tests of ELBO and importance-weighted NLL on a model whose log p(x) is known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import aejax as ae
from aejax import evaluation
from aejax.evaluation.batches import Static
from aejax.evaluation.likelihood import importance
from aejax.types import Batch
from tests.evaluation.cases import Held, Opaque, linear_gaussian

KEY = jax.random.key(7)
# E_q[(p / q)^2] of one latent, if the posterior is shifted by 0.5 and widened by 1.3 deviations.
SHIFT, WIDEN = 0.5, 1.3
SECOND = WIDEN**2 / np.sqrt(2 * WIDEN**2 - 1) * np.exp(SHIFT**2 / (2 * WIDEN**2 - 1))


@pytest.fixture(scope="module")
def exact():
    return linear_gaussian()


@pytest.fixture(scope="module")
def wrong():
    return linear_gaussian(SHIFT, WIDEN)


def test_nll_agrees_with_the_exact_density(wrong):
    """Fails without log K (8.5 nats), or with the analytic KL in the weights (0.9 nats)."""
    draws = 5000
    result = evaluation.nll(wrong.model, wrong.variables, wrong.data, KEY, draws=draws)
    assert abs(result.nll.mean() + wrong.log_prob.mean()) < 0.02
    # Each example agrees too, within five standard errors of a mean of K weights.
    error = np.sqrt((SECOND**8 - 1) / draws)
    assert np.max(np.abs(result.nll + wrong.log_prob)) < 5 * error
    assert result.nll.shape == result.effective_sample_size.shape == (64,)


def test_effective_sample_size_is_the_known_one(wrong):
    """Fails if the sum of squares is rescaled like the sum of weights, or if the ratio is
    inverted.
    """
    result = evaluation.nll(wrong.model, wrong.variables, wrong.data, KEY, draws=5000)
    assert np.mean(result.effective_sample_size) / 5000 == pytest.approx(SECOND**-8, rel=0.1)


def test_effective_sample_size_at_the_exact_posterior_is_the_number_of_draws(exact):
    """Every weight is p(x).

    Fails if surplus draws of the last group count, which gives 56 for 53.
    """
    result = evaluation.nll(exact.model, exact.variables, exact.data, KEY, draws=53, group=7)
    np.testing.assert_allclose(result.effective_sample_size, 53.0, rtol=1e-4)
    np.testing.assert_allclose(result.nll, -exact.log_prob, atol=1e-4)


def test_nll_is_the_sum_over_exactly_its_draws(wrong):
    """It equals numpy's over the same eleven draws. Fails if surplus draws are not masked."""
    model, variables = wrong.model, wrong.variables
    batch = next(wrong.data.batches(1))
    log_weight = []
    for number in range(11):
        noise = jax.random.fold_in(jax.random.fold_in(KEY, 0), number)
        bound = model.bind(variables)
        forward = bound(batch, noise)
        ratio = ae.losses.rate()(bound, forward) + ae.losses.distortion(bound, forward)
        log_weight.append(-float(ratio[0]))
    expected = -np.log(np.mean(np.exp(np.float64(log_weight))))
    for group in (1, 4, 11, 50):
        result = evaluation.nll(model, variables, wrong.data, KEY, draws=11, group=group, batch=3)
        assert result.nll[0] == pytest.approx(expected, abs=1e-4)


def test_figures_depend_on_neither_batch_nor_group(wrong):
    """Fails if noise is drawn for a batch as a whole, or if padding is not cut off."""
    arguments = (wrong.model, wrong.variables, wrong.data, KEY)
    whole = evaluation.nll(*arguments, draws=20, batch=64, group=20)
    parts = evaluation.nll(*arguments, draws=20, batch=7, group=6)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)
    whole = evaluation.elbo(*arguments, draws=5, batch=1000)
    parts = evaluation.elbo(*arguments, draws=5, batch=9, group=2)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_examples_and_draws_have_noise_of_their_own(wrong):
    """Equal examples get unequal values. Fails if the key does not depend on the example."""
    same = Held(np.repeat(wrong.data.x[:1], 16, axis=0))
    result = evaluation.nll(wrong.model, wrong.variables, same, KEY, draws=1)
    assert len(np.unique(result.nll)) == 16


def test_memory_does_not_grow_with_the_draws(wrong):
    """Fails if all draws are computed at once, or if their log-weights are kept."""
    batch = next(wrong.data.batches(16))

    def temporary(draws):
        lowered = importance.lower(
            Static(wrong.model), wrong.variables, KEY, draws, 50, batch, jnp.arange(16)
        )
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary(50_000) == temporary(500)
    # The limit is below one float for each draw and example.
    assert temporary(50_000) < 50_000 * 16 * 4


def test_one_draw_is_the_elbo(wrong):
    """Fails if ELBO and NLL draw from different keys, or if log K is log (K + 1)."""
    opaque = wrong.model.clone(prior=Opaque())
    bound = evaluation.elbo(opaque, wrong.variables, wrong.data, KEY)
    single = evaluation.nll(opaque, wrong.variables, wrong.data, KEY, draws=1)
    np.testing.assert_allclose(single.nll, -bound.elbo, rtol=1e-5)


def test_nll_is_below_the_negative_elbo_over_the_same_draws(wrong):
    """This is Jensen's inequality for each example. Fails if the NLL is the mean of -log w."""
    opaque = wrong.model.clone(prior=Opaque())
    bound = evaluation.elbo(opaque, wrong.variables, wrong.data, KEY, draws=32)
    weighted = evaluation.nll(opaque, wrong.variables, wrong.data, KEY, draws=32)
    assert np.all(weighted.nll < -bound.elbo)


def test_elbo_at_the_exact_posterior_is_exact(exact):
    """log p(x) = log p(x, z) - log q(z | x) for every z. Fails if the rate has the wrong sign."""
    sampled = exact.model.clone(prior=Opaque())
    result = evaluation.elbo(sampled, exact.variables, exact.data, KEY)
    np.testing.assert_allclose(result.elbo, exact.log_prob, atol=1e-4)
    closed = evaluation.elbo(exact.model, exact.variables, exact.data, KEY, draws=2000)
    difference = closed.elbo - exact.log_prob
    assert abs(difference.mean()) < 3 * difference.std() / np.sqrt(len(difference))
    np.testing.assert_allclose(closed.elbo, -(closed.rate + closed.distortion), rtol=1e-6)


def test_a_full_covariance_posterior_may_be_exact_where_a_diagonal_one_is_not():
    """The columns of W are not orthogonal, and every weight is p(x).

    Fails if log q uses the transposed Cholesky factor, its diagonal in place of the logarithm of
    it, or the mean in place of the draw.
    """
    generator, noise = np.random.default_rng(0), 0.5
    weight, bias = generator.normal(size=(5, 3)), generator.normal(size=5)
    covariance = np.linalg.inv(np.eye(3) + weight.T @ weight / noise**2)
    gain, root = weight @ covariance / noise**2, np.linalg.cholesky(covariance)
    still = np.concatenate([np.log(np.diag(root)), root[np.tril_indices(3, -1)]])
    statistics = {
        "kernel": np.pad(gain, ((0, 0), (0, len(still)))),
        "bias": np.concatenate([-bias @ gain, still]),
    }
    output = {"kernel": weight.T, "bias": bias}
    params = {"bottleneck": {"statistics": statistics}, "decoder": {"output": output}}
    params = jax.tree.map(jnp.float32, params)
    model = ae.Autoencoder(
        ae.nets.Identity(),
        ae.FullGaussian(3),
        ae.nets.MLP((), shape=(5,)),
        ae.priors.Standard(),
        ae.likelihoods.Gaussian(noise),
    )
    marginal = weight @ weight.T + noise**2 * np.eye(5)
    x = generator.multivariate_normal(bias, marginal, 16)
    apart = x - bias
    square = np.einsum("ni,ij,nj->n", apart, np.linalg.inv(marginal), apart)
    log_prob = -0.5 * (square + np.linalg.slogdet(2 * np.pi * marginal)[1])
    found = evaluation.nll(model, {"params": params}, Held(x), KEY, draws=5)
    np.testing.assert_allclose(found.nll, -log_prob, atol=2e-4)
    np.testing.assert_allclose(found.effective_sample_size, 5, rtol=1e-3)


def test_elbo_falls_short_by_the_kl_to_the_exact_posterior(wrong):
    """KL(q || p(z | x)) = 8 (-log 1.3 + (1.3^2 + 0.5^2 - 1) / 2) for every x."""
    gap = 8 * (-np.log(WIDEN) + 0.5 * (WIDEN**2 + SHIFT**2 - 1))
    result = evaluation.elbo(wrong.model, wrong.variables, wrong.data, KEY, draws=2000)
    assert np.mean(wrong.log_prob - result.elbo) == pytest.approx(gap, abs=0.02)


def test_closed_rate_equals_the_sampled_one(wrong):
    """They agree within three standard errors.

    Fails if the rate is the mean over latents, not the sum.
    """
    arguments = (wrong.variables, wrong.data, KEY)
    closed = evaluation.elbo(wrong.model, *arguments).rate
    opaque = wrong.model.clone(prior=Opaque())
    sampled = evaluation.elbo(opaque, *arguments, draws=2000).rate
    difference = sampled - closed
    assert difference.std() < 0.2  # otherwise the next line would show nothing
    assert abs(difference.mean()) < 3 * difference.std() / np.sqrt(len(difference))


TRACES = []


class Counting(nn.Module):
    """A linear decoder that counts how often it is traced."""

    size: int

    @nn.compact
    def __call__(self, z, context=None):
        TRACES.append(z.shape)
        return nn.Dense(self.size, name="output")(z)


def test_one_program_serves_members_draws_and_the_last_batch():
    """Fails if each member, K or smaller last batch compiles another program."""
    case = linear_gaussian(examples=10, decoder=Counting)
    stacked = jax.tree.map(lambda a: jnp.stack([a, a, 2 * a]), case.variables)

    def nll(variables, draws=10):
        return evaluation.nll(case.model, variables, case.data, KEY, draws=draws, batch=4, group=5)

    solo = nll(case.variables)
    traced = len(TRACES)
    members = evaluation.over_seeds(nll, stacked, 3)
    nll(case.variables, draws=33)
    assert len(TRACES) == traced > 0
    assert members.nll.shape == (3, 10)
    np.testing.assert_array_equal(members.nll[0], solo.nll)
    np.testing.assert_array_equal(members.nll[1], solo.nll)
    assert np.all(members.nll[2] != solo.nll)
    assert evaluation.means(members)["nll"].shape == (3,)
    assert evaluation.over_seeds(nll, case.variables, None).nll.shape == (1, 10)


def test_equal_models_share_a_program_and_lists_do_no_harm():
    """Fails with TypeError if a model with a list among its attributes is hashed as it is."""
    case, again = linear_gaussian(examples=4), linear_gaussian(examples=4)
    listed = ae.nets.MLP([], shape=[12])  # type: ignore[arg-type]
    models = [case.model.clone(decoder=listed), again.model.clone(decoder=listed)]
    for model in models:
        found = evaluation.nll(model, case.variables, case.data, KEY, draws=2).nll
        np.testing.assert_allclose(found, -case.log_prob, atol=1e-4)
    assert Static(case.model) == Static(again.model)
    assert hash(Static(case.model)) == hash(Static(again.model))
    assert Static(models[0]) == Static(models[0]) != Static(models[1])


def test_cost_counts_decoder_passes(wrong):
    cost = evaluation.nll_cost(wrong.model, wrong.variables, wrong.data, 5000)
    assert cost.passes == 64 * 5000
    assert cost.seconds > 0
    assert "320,000 decoder passes" in str(cost)


def test_masked_elements_cost_nothing(exact):
    """The mask may lack the batch's axis. Fails if the mask is not passed on."""
    arguments = (exact.model, exact.variables)
    mask = np.ones((1, 12), np.float32)
    mask[:, 6:] = 0.0
    masked = Held(exact.data.x, mask=mask)
    spoiled = Held(exact.data.x, target=exact.data.x + 100 * (1 - mask), mask=mask)
    a = evaluation.elbo(*arguments, masked, KEY, batch=5)
    b = evaluation.elbo(*arguments, spoiled, KEY, batch=64)
    np.testing.assert_allclose(a.distortion, b.distortion, rtol=1e-4)
    whole = evaluation.elbo(*arguments, exact.data, KEY)
    assert np.all(whole.distortion != a.distortion)


@pytest.mark.parametrize("change", [{"prior": None}, {"likelihood": None}])
def test_models_without_a_density_are_refused(exact, change):
    model = exact.model.clone(**change)
    with pytest.raises(ae.UserError, match=next(iter(change))):
        evaluation.nll(model, exact.variables, exact.data, KEY)


def test_point_codes_are_refused(exact):
    model = exact.model.clone(bottleneck=ae.Point(8))
    batch = Batch(exact.data.x[:2], exact.data.x[:2])
    variables = jax.jit(model.init)(KEY, batch)
    with pytest.raises(ae.UserError, match="PointCode has no density"):
        evaluation.elbo(model, variables, exact.data, KEY)


def test_numbers_out_of_range_are_refused(exact):
    arguments = (exact.model, exact.variables, exact.data)
    for wrong in ({"draws": 0}, {"group": 0}, {"batch": 0}):
        with pytest.raises(ae.UserError, match=f"{next(iter(wrong))} is 0"):
            evaluation.nll(*arguments, KEY, **wrong)
    with pytest.raises(ae.UserError, match="rbg"):
        evaluation.nll(*arguments, jax.random.key(0, impl="rbg"))
    with pytest.raises(ae.UserError, match="no examples"):
        evaluation.nll(exact.model, exact.variables, Held(np.zeros((0, 12))), KEY)


def cost(model, variables, data, key):
    return evaluation.nll_cost(model, variables, data, draws=5)


@pytest.mark.parametrize("evaluate", [evaluation.nll, evaluation.elbo, evaluation.annealed, cost])
def test_targets_that_the_likelihood_cannot_explain_are_refused(exact, evaluate):
    """Fails if a Bernoulli silently gives an infinite or NaN value for bytes."""
    model = exact.model.clone(likelihood=ae.likelihoods.Bernoulli())
    test = ae.data.arrays(np.full((8, 12), 255, np.uint8), validation=1, test=1)[0]
    with pytest.raises(ae.UserError, match=r"holds 255, outside \[0, 1\]"):
        evaluate(model, exact.variables, test, KEY)


@pytest.mark.parametrize("data", [{"x": np.zeros((1, 12))}, "digits"])
def test_data_that_is_no_split_and_no_array_is_refused(exact, data):
    """Fails if its batches are asked for first."""
    said = f"cannot read data of type {type(data).__name__}"
    with pytest.raises(ae.UserError, match=said):
        evaluation.reconstruction(exact.model, exact.variables, data)
