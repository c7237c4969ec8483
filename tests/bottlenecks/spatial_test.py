"""Tests of the Gaussian map against numpy: its place, its density and its draws."""

import jax
import jax.numpy as jnp
import numpy as np

import aejax as ae

GRID, SIZE = (2, 3), 2
MODULE = ae.SpatialGaussian(GRID, SIZE)


def test_a_position_has_a_gaussian_of_its_own_whose_density_is_that_of_the_map():
    """Fails if means and log_stds of several positions are mixed, if `latent` has another order
    than `mean`, if `lift` does not undo it, or if a draw's noise has another scale.
    """
    features = np.float32(np.random.default_rng(0).normal(size=(4, *GRID, 5)))

    @jax.jit
    def run(key):
        variables = MODULE.init(key, features, None)
        code = MODULE.apply(variables, features, key)
        return variables, code, code.latent, code.log_q(), code.log_prob(code.latent)

    variables, code, latent, log_q, pairs = jax.tree.map(np.asarray, run(jax.random.key(1)))
    layer = variables["params"]["statistics"]["dense"]
    grid = features @ layer["kernel"] + layer["bias"]
    mean, log_std = (half.reshape(4, -1) for half in np.split(grid, 2, axis=-1))
    np.testing.assert_allclose(code.mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(code.log_std, log_std, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(latent, code.z.reshape(4, -1))
    np.testing.assert_array_equal(MODULE.lift(jnp.asarray(latent)), code.z)
    noise = (latent - mean) / np.exp(log_std)
    each = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(log_q, each.sum(1), rtol=1e-4)
    np.testing.assert_allclose(np.diag(pairs), each.sum(1), rtol=1e-4)
    assert 0.6 < noise.std() < 1.4
    assert np.unique(noise).size == noise.size
