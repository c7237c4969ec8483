"""Tests of the steps of flows: they are invertible, and as general as their papers say.

tests/contract_test.py checks their densities.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import bottlenecks
from aejax.bottlenecks.flow_autoregressive import MADE, AutoregressiveStep
from aejax.bottlenecks.flow_planar import PlanarStep
from aejax.bottlenecks.flow_sylvester import SylvesterStep
from aejax.errors import UserError
from tests.contract_test import moved


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (bottlenecks.Planar(3, -1), "Planar has flows = -1"),
        (bottlenecks.Sylvester(3, flows=-1), "Sylvester has flows = -1"),
        (bottlenecks.InverseAutoregressive(3, 1.5), "InverseAutoregressive has flows = 1.5"),
        (bottlenecks.InverseAutoregressive(3, widths=(0,)), "has widths = "),
    ],
)
def test_numbers_that_cannot_be_are_refused(part, said):
    """Fails if flows=-1 is taken for no step, or if a wrong number raises an error of JAX."""
    with pytest.raises(UserError, match=said):
        part.init(jax.random.key(0), jnp.ones((2, 4)), None)


def test_a_planar_step_turns_nothing_inside_out():
    """The step increases everywhere, although w u = -6. Fails if u is not corrected to w u > -1."""
    parameters = {"kernel": jnp.zeros((1, 5)), "bias": jnp.asarray([-3.0, 1.0, 2.0, 0.0, 0.0])}
    variables = {"params": {"parameters": parameters}}
    line = jnp.linspace(-2.0, 2.0, 41)[:, None] * jnp.asarray([[1.0, 0.0]])

    def one(z):
        moved, log_det = PlanarStep().apply(variables, z[None], jnp.ones((1, 1)))
        return moved[0], (moved[0], log_det[0])

    slopes, (moved, log_det) = jax.jit(jax.vmap(jax.jacfwd(one, has_aux=True)))(line)
    assert np.all(np.diff(moved[:, 0]) > 0)
    np.testing.assert_allclose(log_det, np.log(np.linalg.det(np.float64(slopes))), atol=1e-3)
    # The step does not move points along the direction that it does not read.
    np.testing.assert_allclose(np.asarray(slopes)[:, 1, 1], 1.0)


def test_a_planar_step_keeps_off_the_edge_of_what_is_invertible():
    """With w u = -20 the determinant stays above 1e-4.

    softplus(-20) is 2e-9, less than the rounding of 1, so without the margin the determinant where
    w z + b = 0 would be rounding noise around 0.
    """
    parameters = {"kernel": jnp.zeros((1, 5)), "bias": jnp.asarray([-5.0, 1.0, 4.0, 0.0, 0.0])}
    variables = {"params": {"parameters": parameters}}
    _, log_det = jax.jit(PlanarStep().apply)(variables, jnp.zeros((1, 2)), jnp.ones((1, 1)))
    np.testing.assert_allclose(log_det, np.log(1e-4 + np.log1p(np.exp(-20.0))), atol=0.5)


def test_a_sylvester_step_is_equation_13():
    """The step equals equation 13 of the paper in numpy.

    Fails if R and R' share their entries above the diagonal: such a flow has a right density, but
    it is less general.
    """
    count, columns = 4, 3
    generator = np.random.default_rng(0)
    z, features = (generator.normal(size=(5, size)).astype(np.float32) for size in (count, 2))
    step = SylvesterStep(columns)
    variables = moved(jax.jit(step.init)(jax.random.key(0), z, features))

    def linear(name):
        own = variables["params"][name]
        return np.float64(features) @ np.float64(own["kernel"]) + np.float64(own["bias"])

    both = linear("triangles").reshape(5, columns, columns)
    diagonals = 0.999 * np.tanh(linear("diagonals"))
    directions, shift = linear("directions").reshape(5, count, columns), linear("bias")
    found, _ = jax.jit(step.apply)(variables, z, features)
    for i in range(5):
        q = np.linalg.qr(directions[i])[0]
        r = np.triu(both[i], 1) + np.diag(diagonals[i, :columns])
        inner = np.tril(both[i], -1).T + np.diag(diagonals[i, columns:])
        expected = z[i] + q @ r @ np.tanh(inner @ q.T @ z[i] + shift[i])
        np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=1e-5)


def test_a_latent_of_a_masked_net_sees_all_before_it():
    """Shift and scale of a latent depend on every earlier latent, through two hidden layers.

    Fails if a mask is stricter than it must be, which no test of densities shows.
    """
    made, z = MADE((12, 12), jnp.tanh), jnp.asarray([[0.1, -0.2, 0.3, 0.4]])
    variables = made.init(jax.random.key(0), z, jnp.ones((1, 2)))
    for slopes in jax.jit(jax.jacfwd(lambda z: made.apply(variables, z, jnp.ones((1, 2)))))(z):
        assert np.array_equal(np.asarray(slopes)[0, :, 0] != 0, np.tri(4, k=-1, dtype=bool))


def test_autoregressive_steps_turn_the_order_round():
    """After two steps every latent depends on every other latent of the base.

    Fails if both steps have the same order: the first latent then stays Gaussian.
    """
    steps = [AutoregressiveStep((12,), jnp.tanh) for _ in range(2)]
    z = jnp.asarray([[0.1, -0.2, 0.3, 0.4]])
    seen = jnp.ones((1, 2))
    variables = [step.init(jax.random.key(i), z, seen) for i, step in enumerate(steps)]

    def through(z):
        for step, own in zip(steps, variables, strict=True):
            z, _ = step.apply(own, z, seen)
        return z

    slopes = np.asarray(jax.jit(jax.jacfwd(through))(z))[0, :, 0]
    above, below = slopes[np.triu_indices(4, 1)], slopes[np.tril_indices(4, -1)]
    assert np.any(above != 0)
    assert np.any(below != 0)


def test_an_autoregressive_step_starts_near_the_identity():
    """A net of zeros gives the gate sigmoid(1).

    Fails if the gate starts at a half, which would halve the base distribution at every step.
    """
    step, z = AutoregressiveStep((12,), jnp.tanh), jnp.asarray([[0.1, -0.2, 0.3, 0.4]])
    shapes = jax.eval_shape(step.init, jax.random.key(0), z, jnp.ones((1, 2)))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    found, log_det = jax.jit(step.apply)(zeros, z, jnp.ones((1, 2)))
    gate = 1.0 / (1.0 + np.exp(-1.0))
    np.testing.assert_allclose(found, gate * np.asarray(z)[:, ::-1], rtol=1e-6)
    np.testing.assert_allclose(log_det, [4 * np.log(gate)], rtol=1e-6)


def test_every_latent_of_a_masked_net_sees_the_features():
    """The shift and scale of every latent depend on the features.

    Fails if only hidden layers read the features: no hidden unit may feed the first latent, whose
    shift and scale would then be the same for every example.
    """
    made, z, features = MADE((12,), jnp.tanh), jnp.ones((1, 4)), jnp.ones((1, 2))
    variables = made.init(jax.random.key(0), z, features)
    for slopes in jax.jit(jax.jacfwd(lambda seen: made.apply(variables, z, seen)))(features):
        assert np.all(np.asarray(slopes)[0, :, 0] != 0)
