"""Tests of encoders and decoders: shapes, context, dependence on z; patches and GRU in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax as ae

KEY = jax.random.key(0)
B = 3


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


ENCODERS = {
    "resnet": (ae.nets.ResNet((4, 6), 1), (9, 8, 2), 6),
    "patches": (ae.nets.PatchEncoder(2, 8, 2, 2), (6, 8, 2), 8),
    "gru": (ae.nets.GRU(5), (7, 3), 5),
}
DECODERS = {
    "unet": ae.nets.UDecoder((9, 8, 2, 2), (4, 6)),
    "patches": ae.nets.PatchDecoder((6, 8, 2), 2, 8, 2, 2),
    "gru": ae.nets.GRUDecoder((7, 3), 5),
}


# The net of one kind is called by default; the others take long to compile.
@pytest.mark.parametrize(
    "name",
    [n if n == "resnet" else pytest.param(n, marks=pytest.mark.slow) for n in ENCODERS],
)
def test_encoders_give_features_and_take_a_context(name):
    """Each example by itself. Fails if a norm couples the batch, or the context is lost."""
    net, event, features = ENCODERS[name]
    x, context = normal(B, *event), normal(B, 2, seed=1)
    variables = jax.jit(net.init)(KEY, x, context)
    encode = jax.jit(net.apply)
    out = encode(variables, x, context)
    assert out.shape == (B, features + 2)
    np.testing.assert_array_equal(out[:, features:], context)
    np.testing.assert_allclose(encode(variables, x[:1], context[:1]), out[:1], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("net", DECODERS.values(), ids=DECODERS)
def test_decoders_end_in_their_shape_and_depend_on_z_everywhere(net):
    """Fails if sizes that do not halve are cut wrongly, or a patch is left out."""
    z, context = normal(B, 4), normal(B, 2, seed=1)
    variables = jax.jit(net.init)(KEY, z, context)
    out, moved = jax.jit(
        lambda z: jax.jvp(lambda z: net.apply(variables, z, context), (z,), (jnp.ones_like(z),))
    )(z)
    assert out.shape == (B, *net.shape)
    assert out.dtype == jnp.float32
    assert (jnp.abs(moved) > 0).mean() > 0.99


def test_patches_are_the_patches():
    """Without places the mean over patches does not see their order, but it sees within them."""
    net = ae.nets.PatchEncoder(2, 8, 1, 2)
    x = normal(1, 4, 4, 1)
    variables = jax.jit(net.init)(KEY, x)
    params = {**variables["params"], "places": jnp.zeros((1, 4, 8))}
    encode = jax.jit(lambda x: net.apply({"params": params}, x))
    swapped = jnp.roll(x, 2, axis=2)
    np.testing.assert_allclose(encode(swapped), encode(x), atol=1e-5)
    assert np.abs(encode(jnp.roll(x, 1, axis=2)) - encode(x)).max() > 1e-3
    with pytest.raises(ae.UserError, match="pictures of 4 x 5 pixels"):
        jax.eval_shape(net.init, KEY, normal(1, 4, 5, 1))


@pytest.mark.slow
def test_the_gru_against_numpy():
    """Fails if the sequence runs over the batch, or another state than the last is given."""
    net, x = ae.nets.GRU(4), normal(B, 5, 2)
    variables = jax.jit(net.init)(KEY, x)
    cell = next(iter(variables["params"].values()))
    cell = jax.tree.map(np.asarray, cell.get("cell", cell))

    def dense(name, values):
        return values @ cell[name]["kernel"] + cell[name].get("bias", 0.0)

    def sigmoid(values):
        return 1 / (1 + np.exp(-values))

    h = np.zeros((B, 4))
    for t in range(5):
        step = np.asarray(x[:, t])
        r = sigmoid(dense("ir", step) + dense("hr", h))
        u = sigmoid(dense("iz", step) + dense("hz", h))
        n = np.tanh(dense("in", step) + r * dense("hn", h))
        h = (1 - u) * n + u * h
    np.testing.assert_allclose(net.apply(variables, x), h, atol=1e-5)
