"""Tests of the von Mises-Fisher posterior against quadratures in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax.bottlenecks import SphereCode
from aejax.bottlenecks.mises_fisher import gaps, log_area, normaliser, slope

CONCENTRATIONS = np.float32([0.0, 0.01, 1.0, 5.0, 30.0, 500.0, 5000.0])
SLOW = pytest.mark.slow
LONG = [(10, 500.0), (10, 5.0), (3, 500.0), (2, 0.5)]
CASES = [(3, 5.0), *(pytest.param(*case, marks=SLOW) for case in LONG)]


@functools.cache
def cosines(concentration, dimensions, grid=None, points=40_000):
    """Returns 1 - cos(angle), its probabilities, and the log-sum of what they are in proportion to.

    The quadrature is the midpoint rule over the angle, up to where the density vanishes for the
    concentration `grid`, by default its own; all in float64.
    """
    reach = min(np.pi, 40.0 / np.sqrt(max(grid or concentration, 1e-9)))
    angle = (np.arange(points) + 0.5) * reach / points
    area = np.sin(angle) ** (dimensions - 2) * reach / points
    gap = 2 * np.sin(angle / 2) ** 2
    raised = area * np.exp(-concentration * gap)
    return gap, raised / raised.sum(), np.log(raised.sum())


def uniform(dimensions):
    """Returns the logarithm of the integral of the uniform density over the angle."""
    return cosines(0.0, dimensions)[2]


@pytest.mark.parametrize("dimensions", [3, 10, *(pytest.param(d, marks=SLOW) for d in (2, 50))])
def test_normaliser_and_kl_against_quadrature(dimensions):
    """Fails if the order is d / 2, if a step of the recursion is missing, or Debye's terms."""
    found = jax.jit(functools.partial(normaliser, dimensions=dimensions))(CONCENTRATIONS)
    mean = jnp.zeros((len(CONCENTRATIONS), dimensions)).at[:, 0].set(1.0)
    code = SphereCode(mean, mean, jnp.asarray(CONCENTRATIONS))
    kl = jax.jit(lambda code: ae.priors.Hypersphere().kl(code))(code)[:, 0]
    for i, concentration in enumerate(map(float, CONCENTRATIONS)):
        gap, weight, log_sum = cosines(concentration, dimensions)
        log_m, short = log_sum - uniform(dimensions), concentration * (weight @ gap)
        assert abs(found[0][i] - log_m) < 1e-5 + 1e-6 * abs(log_m)
        assert abs(found[1][i] - short) < 1e-5
        # KL = E[log q - log p] = -concentration E[gap] - log M'
        assert abs(kl[i] - (-short - log_m)) < 2e-5 + 2e-6 * abs(log_m)


def test_areas():
    assert log_area(2) == pytest.approx(np.log(2 * np.pi))
    assert log_area(3) == pytest.approx(np.log(4 * np.pi))
    np.testing.assert_allclose(ae.priors.Hypersphere().log_prob(jnp.eye(3)), -np.log(4 * np.pi))


@pytest.mark.parametrize(("dimensions", "concentration"), CASES)
def test_draws_have_the_density_and_their_gradient_is_that_of_the_mean(dimensions, concentration):
    """Moments and quantiles of 1 - t, and the mean derivative, are those of the quadrature.

    Fails if the rejection is left out, if the proposal's parameter is that of d dimensions, or if
    the derivative has the other sign or leaves out one side.
    """
    n = 40_000
    value = jnp.full((n,), concentration)

    @jax.jit
    def drawn(value):
        draw = lambda value: gaps(jax.random.key(1), value, dimensions)  # noqa: E731
        return jax.jvp(draw, (value,), (jnp.ones(n),))

    gap, by = (np.asarray(a, np.float64) for a in drawn(value))
    y, weight, _ = cosines(concentration, dimensions)
    scale = weight @ y
    for power in (0.5, 1.0, 2.0):
        moment = (gap / scale) ** power
        exact = weight @ (y / scale) ** power
        assert abs(moment.mean() - exact) < 4.5 * moment.std() / n**0.5
        # d E[y^p] / d concentration = -Cov(y^p, y) is the mean derivative of a draw's y^p.
        change = power * (gap / scale) ** (power - 1) * by / scale
        exact = scale * (exact * 1.0 - weight @ (y / scale) ** (power + 1))
        assert abs(change.mean() - exact) < 4.5 * change.std() / n**0.5 + 1e-5 * abs(exact)
    below = np.cumsum(weight)
    for share in (0.1, 0.5, 0.9):
        quantile = y[np.searchsorted(below, share)]
        assert abs((gap < quantile).mean() - share) < 4.5 * (share * (1 - share) / n) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("dimensions", "concentration"), CASES)
def test_the_derivative_of_a_draw_keeps_its_probability(dimensions, concentration):
    """It is -dF/dconcentration / density, by differences of the quadrature."""
    y, weight, _ = cosines(concentration, dimensions)
    at = np.searchsorted(np.cumsum(weight), [0.001, 0.1, 0.4, 0.6, 0.9, 0.99])
    step = 1e-3 * concentration
    near = [cosines(concentration + s, dimensions, concentration)[1] for s in (step, -step)]
    high, low = (np.cumsum(each) - each / 2 for each in near)
    density = weight[at] / np.gradient(y)[at]
    expected = -(high - low)[at] / (2 * step) / density
    gap = jnp.asarray(y[at], jnp.float32)
    found = slope(gap, jnp.full(gap.shape, concentration), dimensions)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_log_q_is_a_density_on_the_sphere_and_z_a_unit_vector():
    """On the circle and on the sphere it integrates to one. Fails if the area is left out."""
    for dimensions, concentration in ((2, 3.0), (3, 7.0)):
        mean = np.eye(dimensions, dtype=np.float32)[:1]
        code = SphereCode(jnp.asarray(mean), jnp.asarray(mean), jnp.asarray([concentration]))
        random = np.random.default_rng(0)
        z = random.normal(size=(50_000, dimensions))
        z = np.float32(z / np.linalg.norm(z, axis=1, keepdims=True))
        log_prob = jax.jit(lambda code, z: code.log_prob(z))(code, z)
        density = np.exp(np.asarray(log_prob)[:, 0], dtype=np.float64)
        area = np.exp(log_area(dimensions))
        assert abs(density.mean() * area - 1) < 4.5 * area * density.std() / len(z) ** 0.5
    wide = SphereCode(*(jnp.tile(a, (5000, 1)) for a in code[:2]), jnp.full((5000,), 7.0))
    prior = ae.priors.Hypersphere()

    @jax.jit
    def figures(code, key):
        drawn = code._replace(z=code.redraw(key))
        return drawn.z, drawn.log_q() - prior.log_prob(drawn.z), prior.kl(code)

    z, rate, kl = (np.asarray(a, np.float64) for a in figures(wide, jax.random.key(0)))
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1.0, rtol=1e-5)
    assert abs(rate.mean() - kl[0, 0]) < 4.5 * rate.std() / 5000**0.5
    across = z[:, 1:]
    assert np.all(np.abs(across.mean(0)) < 4.5 * across.std(0) / 5000**0.5)


def test_a_prior_of_another_space_is_refused():
    x = np.random.default_rng(0).integers(0, 2, (8, 6)).astype(np.float32)

    def traced(bottleneck, prior, objective):
        model = ae.Autoencoder(
            ae.nets.MLP((8,)), bottleneck, ae.nets.MLP((8,), 6), prior, ae.likelihoods.Bernoulli()
        )
        learner = ae.learner(model, objective, optax.sgd(0.1))
        return jax.eval_shape(learner.init, jax.random.key(0), ae.Batch(x, x))

    sampled = ae.elbo(rate=ae.losses.rate())
    for objective in (ae.elbo(), sampled):
        traced(ae.VonMisesFisher(3), ae.priors.Hypersphere(), objective)
        with pytest.raises(ae.UserError, match="does not lie on the unit sphere"):
            traced(ae.Gaussian(3), ae.priors.Hypersphere(), objective)
        with pytest.raises(ae.UserError, match="lies on the unit sphere"):
            traced(ae.VonMisesFisher(3), ae.priors.Standard(), objective)
    vamp = ae.priors.Vamp((6,), pseudo_inputs=4)
    traced(ae.VonMisesFisher(3), vamp, sampled)
