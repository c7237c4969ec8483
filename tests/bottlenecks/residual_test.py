"""Tests of residual vector quantisation against a loop in numpy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

import aejax as ae

CODES, SIZE, POSITIONS, DEPTH = 6, 3, (2,), 3
X = jnp.asarray(np.random.default_rng(0).normal(size=(64, 7)), jnp.float32)
MODULE = ae.ResidualQuantised(CODES, SIZE, DEPTH, POSITIONS, decay=0.8)


def trained():
    """Returns variables after some batches of the same examples."""
    variables = jax.jit(MODULE.init)(jax.random.key(0), X, None)

    @jax.jit
    def step(memory, key):
        return MODULE.apply({**variables, "memory": memory}, X, key, mutable=["memory"])[1][
            "memory"
        ]

    memory = variables["memory"]
    for i in range(30):
        memory = step(memory, jax.random.key(i))
    return {**variables, "memory": memory}


def test_each_codebook_quantises_what_is_left_over():
    """Indices and z are those of the loop, and each codebook makes the error smaller.

    Fails if all codebooks see the encoded vector, or if z is the sum of some of them only.
    """
    variables = trained()
    code = jax.jit(MODULE.apply)(variables, X, None)
    encoded = np.asarray(code.encoded, np.float64)
    left, errors = encoded.copy(), [np.mean(encoded**2)]
    for i in range(DEPTH):
        memory = variables["memory"][f"levels_{i}"]
        codebook = np.asarray(memory["sums"] / memory["counts"][:, None], np.float64)
        chosen = np.square(left[:, :, None] - codebook).sum(-1).argmin(-1)
        assert np.mean(chosen == np.asarray(code.indices)[..., i]) > 0.98  # ties by rounding
        left = left - codebook[np.asarray(code.indices)[..., i]]
        errors.append(np.mean(left**2))
    np.testing.assert_allclose(code.z, encoded - left, atol=1e-5)
    assert all(after < 0.8 * before for before, after in itertools.pairwise(errors))
    lifted = MODULE.apply(variables, code.indices, method="lift")
    np.testing.assert_allclose(lifted, code.z, atol=1e-6)
    assert MODULE.shape == (*POSITIONS, DEPTH)
    assert MODULE.apply(variables, method="usage").shape == (DEPTH * CODES,)
