"""Tests of likelihoods against scipy and numpyro."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import likelihoods, priors
from aejax.errors import UserError
from aejax.normal import bounded

stats = pytest.importorskip("scipy.stats")
EVENT = (3, 2)


def _normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _learned(raw, **attributes):
    model = likelihoods.LearnedGaussian(**attributes)
    return model.bind({"params": {"raw_std": jnp.float32(raw)}})


def test_bernoulli_against_scipy():
    """Fails if the sum runs over the batch, or if logits are read as probabilities."""
    logits, target = 3 * _normal(0, 5, *EVENT), (_normal(1, 5, *EVENT) > 0).astype(np.float32)
    found = likelihoods.Bernoulli().log_prob(logits, target)
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = stats.bernoulli.logpmf(target, probability).sum(axis=(1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_bernoulli_of_many_elements_is_exact_from_end_to_end():
    """35 elements are no multiple of a product's factors, and logits go up to 200.

    Fails if padding counts (log 2 each), if a product of all elements overflows, or if the
    derivative at 0 is that of |x|.
    """
    logits = np.float32(np.linspace(-200, 200, 35))[None] * np.float32([[1], [0.1], [0]])
    target = (np.arange(105).reshape(3, 35) % 3 == 0).astype(np.float32)
    wide = logits.astype(np.float64)
    expected = -np.logaddexp(0, np.where(target > 0, -wide, wide)).sum(axis=1)
    found = likelihoods.Bernoulli().log_prob(logits, target)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    gradient = jax.grad(lambda x: likelihoods.Bernoulli().log_prob(x, target).sum())(logits)
    np.testing.assert_allclose(gradient, target - 1 / (1 + np.exp(-wide)), atol=1e-6)


def test_bernoulli_with_soft_targets_is_the_cross_entropy():
    """numpyro gives -inf here. Fails if targets are rounded."""
    logits, target = 2 * _normal(0, 4, 6), np.random.default_rng(1).random((4, 6))
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = target * np.log(probability) + (1 - target) * np.log(1 - probability)
    found = likelihoods.Bernoulli().log_prob(logits, target.astype(np.float32))
    np.testing.assert_allclose(found, expected.sum(axis=1), rtol=1e-5)


def test_bernoulli_of_large_logits_is_finite_and_its_gradient_too():
    """Fails if the probability is computed first, which gives log 0."""
    logits = jnp.array([[-200.0, 200.0, -200.0, 200.0]])
    target = jnp.array([[0.0, 1.0, 1.0, 0.0]])
    likelihood = likelihoods.Bernoulli()
    np.testing.assert_allclose(likelihood.log_prob(logits, target), [-400.0])
    slope = jax.grad(lambda p: likelihood.log_prob(p, target)[0])(logits)
    np.testing.assert_allclose(slope, [[0.0, 0.0, 1.0, -1.0]], atol=1e-6)
    at_zero = jax.grad(lambda p: likelihood.log_prob(p, target)[0])(jnp.zeros((1, 4)))
    np.testing.assert_allclose(at_zero, [[-0.5, 0.5, 0.5, -0.5]])


@pytest.mark.parametrize("std", [0.1, 1.0, 2.5])
def test_gaussian_against_scipy(std):
    """Fails without 2 pi, or if log std counts once instead of for each element."""
    prediction, target = _normal(0, 5, *EVENT), _normal(1, 5, *EVENT)
    expected = stats.norm.logpdf(target.astype(np.float64), prediction, std).sum(axis=(1, 2))
    found = likelihoods.Gaussian(std).log_prob(prediction, target)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    learned = _learned(np.log(std - 1e-3)).log_prob(prediction, target)
    np.testing.assert_allclose(learned, expected, rtol=1e-4)


def test_densities_agree_with_numpyro():
    distributions = pytest.importorskip("numpyro.distributions")
    prediction, target = _normal(0, 5, 6), _normal(1, 5, 6)
    expected = distributions.Normal(prediction, 0.7).to_event(1).log_prob(target)
    found = likelihoods.Gaussian(0.7).log_prob(prediction, target)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    binary = (target > 0).astype(np.float32)
    expected = distributions.Bernoulli(logits=prediction).to_event(1).log_prob(binary)
    found = likelihoods.Bernoulli().log_prob(prediction, binary)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "likelihood", [likelihoods.Bernoulli(), likelihoods.Gaussian(0.5), _learned(0.1)]
)
@pytest.mark.parametrize("lead", [5, 1])
def test_masks_leave_elements_out_of_the_sum(likelihood, lead):
    """Fails if the mask multiplies the prediction: a masked element then still counts."""
    prediction, target = _normal(0, 5, 6), (_normal(1, 5, 6) > 0).astype(np.float32)
    mask = np.zeros((lead, 6), np.float32)
    mask[:, :4] = 1.0
    found = likelihood.log_prob(prediction, target, mask)
    expected = likelihood.log_prob(prediction[:, :4], target[:, :4])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_learned_deviation_is_bounded_below():
    """Fails if the floor is left out: the std could be 0 and the density infinite."""
    likelihood = _learned(-1e4, floor=0.01)
    assert likelihood.std() == pytest.approx(0.01)
    exact = likelihood.log_prob(jnp.ones((1, 8)), jnp.ones((1, 8)))
    np.testing.assert_allclose(exact, 8 * stats.norm.logpdf(0.0, 0.0, 0.01), rtol=1e-5)
    prediction = jnp.zeros((1, 2))
    params = likelihoods.LearnedGaussian(start=0.7).init(
        jax.random.key(0), prediction, prediction, method="log_prob"
    )
    assert likelihoods.LearnedGaussian(start=0.7).apply(params, method="std") == pytest.approx(0.7)


def test_learned_deviation_starts_from_the_first_errors():
    """Missing elements are left out. Fails if the prediction, a mask or the floor is forgotten."""
    target, prediction = 50 * _normal(0, 4, 3) + 20, _normal(1, 4, 3)
    mask = np.ones((4, 3), np.float32)
    mask[1, 2], target[1, 2] = 0, 1e6
    likelihood = likelihoods.LearnedGaussian()
    params = likelihood.init(jax.random.key(0), prediction, target, mask, method="log_prob")
    errors = (target - prediction)[mask == 1]
    wanted = pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-5)
    assert likelihood.apply(params, method="std") == wanted
    params = likelihood.init(jax.random.key(0), target, target, method="log_prob")
    assert likelihood.apply(params, method="std") == pytest.approx(2e-3)


def test_predicted_log_deviations_are_bounded_softly():
    """Unchanged to the bit within the range, and never flat or infinite outside."""
    inside = np.random.default_rng(0).uniform(-10, 4, 1000).astype(np.float32)
    assert (np.asarray(bounded(jnp.asarray(inside))) == inside).all()
    outside = jnp.asarray([-1e30, -1e3, -11.0, 5.0, 1e3, 1e30])
    wanted = [-10 - np.log1p(1e30), -10 - np.log(991), -10 - np.log(2)]
    wanted += [4 + np.log(2), 4 + np.log(997), 4 + np.log1p(1e30)]
    np.testing.assert_allclose(bounded(outside), wanted, rtol=1e-6)
    slope = jax.vmap(jax.grad(bounded))(jnp.asarray([-1e3, -11.0, 0.5, 5.0, 1e3]))
    np.testing.assert_allclose(slope, [1 / 991, 1 / 2, 1, 1 / 2, 1 / 997], rtol=1e-5)
    prediction = jnp.asarray([[[0.0, 300.0]]])
    assert np.isfinite(likelihoods.HeteroscedasticGaussian().log_prob(prediction, jnp.ones((1, 1))))


def test_learned_deviation_is_fitted_by_its_gradient():
    """At the maximum the std is that of the errors. Fails if the gradient is stopped or doubled."""
    target = 0.3 * _normal(0, 400, 5)
    error = float(np.sqrt(np.mean(target.astype(np.float64) ** 2)))

    def loss(raw):
        return -jnp.mean(_learned(raw).log_prob(jnp.zeros((400, 5)), target))

    assert jax.grad(loss)(np.log(error - 1e-3)) == pytest.approx(0.0, abs=1e-4)
    assert jax.grad(loss)(np.log(2 * error)) > 1.0


@pytest.mark.parametrize(
    ("likelihood", "mean", "std"),
    [
        (likelihoods.Bernoulli(), 1 / (1 + np.exp(-0.4)), None),
        (likelihoods.Gaussian(0.5), 0.4, 0.5),
        (_learned(np.log(0.5 - 1e-3)), 0.4, 0.5),
    ],
)
def test_samples_have_the_mean_and_spread_that_the_density_says(likelihood, mean, std):
    prediction = jnp.full((20_000, 1), 0.4)
    drawn = np.asarray(likelihood.sample(jax.random.key(0), prediction))
    np.testing.assert_allclose(likelihood.mean(prediction[:1]), [[mean]], rtol=1e-6)
    std = np.sqrt(mean * (1 - mean)) if std is None else std
    assert abs(drawn.mean() - mean) < 4 * std / np.sqrt(20_000)
    assert drawn.std() == pytest.approx(std, rel=0.03)
    assert tuple(likelihood.shape(EVENT)) == EVENT


def test_bernoulli_gradient_at_a_logit_of_zero():
    """Fails if softplus is differentiated as max(x, 0) + log1p(exp(-|x|)), whose kink is at 0."""
    target = jnp.asarray([[0.0, 0.3, 1.0]])
    gradient = jax.grad(lambda logits: likelihoods.Bernoulli().log_prob(logits, target, None).sum())
    np.testing.assert_allclose(gradient(jnp.zeros((1, 3))), target - 0.5, rtol=1e-6)


def logistic_log_prob(number, mean, raw, levels):
    """Computes log P of a rounded logistic in float64, from the side without cancellation."""
    apart, half = 2.0 * number / (levels - 1) - 1.0 - mean, 1.0 / (levels - 1)
    lower = np.where(number == 0, -np.inf, (apart - half) / np.exp(raw))
    upper = np.where(number == levels - 1, np.inf, (apart + half) / np.exp(raw))
    cdf, sf = stats.logistic.cdf, stats.logistic.sf
    return np.log(np.where(lower > 0, sf(lower) - sf(upper), cdf(upper) - cdf(lower)))


@pytest.mark.parametrize(("levels", "raw"), [(5, -1.0), (256, -2.5), (256, -5.0)])
def test_discretised_logistics_against_scipy(levels, raw):
    """They agree even 300 scales from the mean.

    Fails if a bin is as wide as two, if the ends have no tails, or if probabilities are subtracted
    that both round to 1.
    """
    number = np.unique(np.linspace(0, levels - 1, 9).round())
    mean = np.array([-1.2, 0.1, 0.9])[:, None]
    expected = logistic_log_prob(number, mean, raw, levels)
    shape = (*expected.shape, 2)
    prediction = np.stack(np.broadcast_arrays(mean, raw, expected)[:2], -1).astype(np.float32)
    target = np.broadcast_to(number / (levels - 1), expected.shape).astype(np.float32)
    model = likelihoods.DiscretisedLogistic(levels)
    assert prediction.shape == shape == (3, *model.shape(number.shape))
    # The mask leaves one element at a time.
    each = [model.log_prob(prediction, target, row[None]) for row in np.eye(len(number))]
    np.testing.assert_allclose(np.stack(each, 1), expected, rtol=1e-4, atol=1e-4)
    assert likelihoods.bits_per_dimension(6 * np.log(2.0), EVENT) == pytest.approx(1.0)


@pytest.mark.parametrize(("beyond", "limit"), [(-100.0, -7.0), (100.0, 7.0)])
def test_log_scales_beyond_their_limits_count_as_these(beyond, limit):
    """Fails without one end of the clip: probabilities are then 0, or scales overflow."""

    def log_prob(raw):
        prediction = jnp.stack([jnp.zeros((1, 3)), jnp.full((1, 3), raw)], axis=-1)
        return likelihoods.DiscretisedLogistic(5).log_prob(prediction, jnp.asarray([[0, 0.5, 1]]))

    np.testing.assert_array_equal(log_prob(beyond), log_prob(limit))
    assert np.all(np.isfinite(log_prob(beyond)))
    assert not np.array_equal(log_prob(0.9 * limit), log_prob(limit))


def test_mixtures_of_logistics_against_scipy():
    """Fails if each colour channel of a pixel chooses its own component.

    Fails also if blue depends on red by green's slope, or if a slope is not squashed.
    """
    count, levels = 3, 5
    number = np.random.default_rng(2).integers(0, levels, (4, 1, 1, 3))
    target = (number / (levels - 1)).astype(np.float32)
    prediction = _normal(3, 4, 1, 1, 3, 3 * count)
    logits, mean, raw = np.split(np.float64(prediction), 3, axis=-1)
    weight = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    each = np.log(np.exp(weight + logistic_log_prob(number[..., None], mean, raw, levels)).sum(-1))
    found = likelihoods.LogisticMixture(count, levels).log_prob(prediction, target)
    np.testing.assert_allclose(found, each.sum((1, 2, 3)), rtol=1e-5)

    prediction = _normal(4, 4, 1, 1, 10 * count)
    found = likelihoods.ColourLogisticMixture(count, levels).log_prob(prediction, target)
    for i in range(4):
        logits, rest = np.split(np.float64(prediction[i, 0, 0]), [count])
        means, raw, slopes = rest.reshape(3, 3, count)
        red, green, _ = 2.0 * target[i, 0, 0] - 1.0
        slopes = np.tanh(slopes)
        means[1] += slopes[0] * red
        means[2] += slopes[1] * red + slopes[2] * green
        each = logistic_log_prob(number[i, 0, 0][:, None], means, raw, levels).sum(0)
        weight = np.exp(logits) / np.exp(logits).sum()
        assert found[i] == pytest.approx(np.log(np.sum(weight * np.exp(each))), rel=1e-4)


def test_the_mean_of_a_colour_mixture_by_enumeration():
    """All colours of a pixel are enumerated, each weighted by its probability.

    The means of green and blue are exact except for the ends of the range, which matter little
    here. Fails if they depend on earlier channels in [0, 1] in place of [-1, 1].
    """
    levels, raw, slope = 16, -2.5, np.tanh(0.5)
    means = np.array([0.2, -0.1, 0.1])
    number = np.arange(levels)
    place = 2.0 * number / (levels - 1) - 1.0
    red = np.exp(logistic_log_prob(number, means[0], raw, levels))
    shifted = means[1] + slope * place[:, None]
    green = red[:, None] * np.exp(logistic_log_prob(number, shifted, raw, levels))
    shifted = means[2] + slope * (place[:, None, None] + place[:, None])
    blue = green[..., None] * np.exp(logistic_log_prob(number, shifted, raw, levels))
    value = number / (levels - 1)
    expected = [red @ value, green.sum(0) @ value, blue.sum((0, 1)) @ value]
    np.testing.assert_allclose(expected, [0.60000, 0.49621, 0.59445], atol=5e-6)

    count = 2  # both components are equal
    numbers = np.stack([means, np.full(3, raw), np.full(3, 0.5)])
    prediction = np.concatenate([np.zeros(count), np.repeat(numbers.ravel(), count)])
    prediction = np.float32(prediction).reshape(1, 1, 1, -1)
    found = likelihoods.ColourLogisticMixture(count, levels).mean(prediction)[0, 0, 0]
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: likelihoods.Gaussian(0.0), "Gaussian has std = 0.0"),
        (lambda: likelihoods.Gaussian(-1.0), "Gaussian has std = -1.0"),
        (lambda: likelihoods.Gaussian(np.nan), "Gaussian has std = nan"),
        (lambda: likelihoods.HeteroscedasticGaussian(-1.0), "Gaussian has floor = -1.0"),
        (lambda: likelihoods.LearnedGaussian(floor=0.1, start=0.05), "start = 0.05: give a floor"),
        (lambda: likelihoods.DiscretisedLogistic(1), "DiscretisedLogistic has levels = 1"),
        (lambda: likelihoods.LogisticMixture(0), "LogisticMixture has components = 0"),
        (lambda: likelihoods.ColourLogisticMixture(2, 1), "ColourLogisticMixture has levels = 1"),
        (lambda: likelihoods.Categorical(0), "Categorical has classes = 0"),
        (lambda: priors.Mixture(3, -1.0), "Mixture has spread = -1.0"),
        (lambda: priors.Mixture(0), "Mixture has components = 0"),
        (lambda: priors.Mixture(None), "Mixture has components = None"),
        (lambda: priors.Vamp((2,), 0), "Vamp has pseudo_inputs = 0"),
    ],
)
def test_numbers_that_cannot_be_are_refused(build, said):
    """They are refused when the part is made. Fails if log 0 shows up in the first step."""
    with pytest.raises(UserError, match=said):
        build()
