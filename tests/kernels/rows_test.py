"""Tests of kernels on rows against the dense product: values and all gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.bottlenecks import Rows
from aejax.kernels.decode import decode_rows

M, D = 40, 12


def case(size, k, repeated=False, seed=0):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(size, k)).astype(np.float32)
    if repeated:
        indices = generator.integers(0, 3, (size, k))
    else:
        indices = np.stack([generator.permutation(M)[:k] for _ in range(size)])
    atoms = generator.normal(size=(M, D)).astype(np.float32)
    return jnp.asarray(values), jnp.asarray(indices, jnp.int32), jnp.asarray(atoms)


def dense(values, indices, atoms):
    """Computes the same through a one-hot product, with autodiff's gradients."""
    codes = jnp.einsum("bk,bkm->bm", values, jax.nn.one_hot(indices, M))
    return codes @ atoms


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize(("size", "k"), [(1, 1), (7, 3), (32, 8), (5, M)])
def test_decode_rows_is_the_dense_product(size, k, repeated):
    """Fails if the scatter sets instead of adding, or if d_values is not transposed back."""
    values, indices, atoms = case(size, k, repeated)
    np.testing.assert_allclose(
        decode_rows(values, indices, atoms), dense(values, indices, atoms), rtol=1e-5, atol=1e-5
    )
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(size, D)), jnp.float32)

    def gradients(decode):
        def cost(values, atoms):
            return jnp.sum(weights * jnp.square(decode(values, indices, atoms)))

        return jax.jit(jax.grad(cost, argnums=(0, 1)))(values, atoms)

    for ours, theirs in zip(gradients(decode_rows), gradients(dense), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_decode_rows_under_vmap_is_the_loop():
    """Seeds map over values, indices and atoms."""
    cases = [case(4, 3, seed=s) for s in range(3)]
    stacked = [jnp.stack(column) for column in zip(*cases, strict=True)]

    def gradient(values, indices, atoms):
        return jax.grad(lambda v, a: jnp.sum(decode_rows(v, indices, a) ** 3), (0, 1))(
            values, atoms
        )

    together = jax.vmap(gradient)(*stacked)
    for i, one in enumerate(cases):
        for ours, theirs in zip(together, gradient(*one), strict=True):
            np.testing.assert_allclose(ours[i], theirs, rtol=1e-5, atol=1e-5)


def test_decode_rows_in_bfloat16_sums_in_float32():
    """Fails if slots, or examples in the atoms' gradient, are summed in bfloat16.

    The same small number is added 300 times; in bfloat16 the sum stops growing at 256 of them.
    """
    k = 300
    values = jnp.ones((1, k), jnp.bfloat16)
    indices = jnp.zeros((1, k), jnp.int32)
    atoms = jnp.ones((2, 3), jnp.bfloat16)
    output = decode_rows(values, indices, atoms)
    assert output.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(output, np.float32), np.full((1, 3), 300.0), rtol=1e-2)

    def cost(atoms):
        many = jnp.broadcast_to(values[:, :1], (k, 1))
        return jnp.sum(decode_rows(many, jnp.zeros((k, 1), jnp.int32), atoms).astype(jnp.float32))

    gradient = jax.grad(cost)(atoms)
    assert gradient.dtype == jnp.bfloat16
    expected = np.array([[300.0] * 3, [0.0] * 3])
    np.testing.assert_allclose(np.asarray(gradient, np.float32), expected, rtol=1e-2)


@pytest.mark.parametrize("repeated", [False, True])
def test_rows_as_a_dense_code(repeated):
    """Fails if repeated slots overwrite each other, or if the batch axis is mixed up."""
    values, indices, _ = case(6, 4, repeated)
    expected = np.zeros((6, M), np.float32)
    for b in range(6):
        for value, index in zip(values[b], indices[b], strict=True):
            expected[b, index] += value
    np.testing.assert_allclose(Rows(values, indices, M).dense(), expected, rtol=1e-6, atol=1e-6)
