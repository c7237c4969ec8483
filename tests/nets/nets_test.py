"""Tests of nets: shapes, context, and bfloat16 computation with float32 parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax.bottlenecks import Rows
from aejax.nets.conv import Residual
from tests import kinds

B = 5


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_mlp_against_numpy():
    """Fails if an activation follows the last layer, or if one is left out between other layers."""
    net = ae.nets.MLP((7, 6), shape=(3, 2))
    x = normal(B, 4, 2)
    variables = net.init(jax.random.key(0), x)
    hidden = np.asarray(x).reshape(B, 8)
    for name in ("hidden_0", "hidden_1"):
        layer = variables["params"][name]
        hidden = np.maximum(hidden @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]), 0)
    features = ae.nets.MLP((7, 6)).apply(
        {"params": {k: variables["params"][k] for k in ("hidden_0", "hidden_1")}}, x
    )
    np.testing.assert_allclose(features, hidden, rtol=1e-5, atol=1e-6)
    layer = variables["params"]["output"]
    output = hidden @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
    np.testing.assert_allclose(
        net.apply(variables, x), output.reshape(B, 3, 2), rtol=1e-5, atol=1e-6
    )


def test_an_activation_with_a_layer_normalisation_against_numpy():
    """Fails if two hidden layers share its parameters, or if it follows the activation."""
    net = ae.nets.MLP((7, 6), activation=ae.nets.LayerNormed(jax.nn.tanh))
    x = normal(B, 4)
    params = jax.jit(net.init)(jax.random.key(0), x)["params"]
    params["LayerNorm_1"] = {"scale": normal(6, seed=1), "bias": normal(6, seed=2)}
    hidden = np.asarray(x)
    for i in range(2):
        layer, norm = params[f"hidden_{i}"], params[f"LayerNorm_{i}"]
        hidden = hidden @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        hidden -= hidden.mean(1, keepdims=True)
        hidden /= np.sqrt(hidden.var(1, keepdims=True) + 1e-6)
        hidden = np.tanh(hidden * np.asarray(norm["scale"]) + np.asarray(norm["bias"]))
    found = jax.jit(net.apply)({"params": params}, x)
    np.testing.assert_allclose(found, hidden, rtol=1e-4, atol=1e-5)


def test_mlp_of_a_number_of_units_ends_in_a_vector():
    """Fails if `shape` may not be a number, as a Dictionary's may."""
    net = ae.nets.MLP((7,), shape=3)
    assert net.init_with_output(jax.random.key(0), normal(B, 4))[0].shape == (B, 3)


@pytest.mark.parametrize("widths", [32, (32, 0)])
def test_mlp_of_widths_that_cannot_be_is_refused(widths):
    """Fails if wrong widths raise an error only when the layers are made."""
    with pytest.raises(ae.UserError, match=r"MLP has widths = .*hidden layer, such as \(32,\)"):
        ae.nets.MLP(widths)


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (28, 1), (30, 2), (33, 1), (64, 3)])
def test_conv_and_deconv_take_images_of_any_size(side, channels):
    """Fails if sizes that no power of two divides are not cropped, or are rounded down."""
    x = jax.ShapeDtypeStruct((2, side, side, channels), jnp.float32)
    encode, decode = ae.nets.Conv((4, 8), 16), ae.nets.Deconv((side, side, channels), (8, 4))

    def both(key, x):
        features, encoder = encode.init_with_output(key, x)
        return features, encoder, *decode.init_with_output(key, features)

    features, encoder, image, _ = jax.eval_shape(both, jax.random.key(0), x)
    assert features.shape == (2, 16)
    assert image.shape == x.shape
    assert image.dtype == jnp.float32
    small = -(-side // 4)
    assert encoder["params"]["dense"]["kernel"].shape[0] == small * small * 8


@pytest.mark.parametrize(("side", "small"), [(64, 4), (32, 2), (28, 2)])
def test_the_nets_of_the_protocol(side, small):
    """They are those of Locatello et al. 2019 at 64 pixels. Fails with a stage too few."""
    x = jax.ShapeDtypeStruct((2, side, side, 1), jnp.float32)
    encode, decode = ae.nets.Strided(), ae.nets.Transposed((side, side, 1))

    def both(key, x):
        features, encoder = encode.init_with_output(key, x)
        return encoder, *decode.init_with_output(key, features[:, :10])

    encoder, image, decoder = jax.eval_shape(both, jax.random.key(0), x)
    assert image.shape == x.shape
    kernels = [encoder["params"][f"down_{i}"]["kernel"].shape for i in range(4)]
    assert kernels == [(4, 4, 1, 32), (4, 4, 32, 32), (2, 2, 32, 64), (2, 2, 64, 64)]
    assert encoder["params"]["dense"]["kernel"].shape == (small * small * 64, 256)
    assert decoder["params"]["image"]["kernel"].shape == (256, small * small * 64)
    kernels = [decoder["params"][f"up_{i}"]["kernel"].shape for i in range(4)]
    assert kernels == [(4, 4, 64, 64), (4, 4, 64, 32), (4, 4, 32, 32), (4, 4, 32, 1)]


def test_deconv_of_an_oblong_image_depends_on_every_side():
    net = ae.nets.Deconv((6, 10, 2), (4,))
    z = normal(B, 3)
    image, variables = net.init_with_output(jax.random.key(0), z)
    assert image.shape == (B, 6, 10, 2)
    spread = np.asarray(image).std(0)
    assert np.all(spread > 0)
    assert not np.array_equal(image, net.apply(variables, z + 1))


def test_a_fresh_residual_block_is_the_identity_and_learns():
    """Fails if the second convolution does not start at zero, or if both do."""
    net = Residual(jax.nn.silu, None)
    x = normal(B, 6, 6, 3)
    output, variables = net.init_with_output(jax.random.key(0), x)
    np.testing.assert_array_equal(output, x)

    def cost(params):
        return jnp.sum(net.apply({"params": params}, x) ** 3)

    gradient = jax.grad(cost)(variables["params"])
    assert np.any(gradient["Conv_1"]["kernel"] != 0)


def test_dictionary_takes_rows_and_dense_codes_alike():
    """Fails if the bias is left out of one form, or if atoms are columns."""
    net = ae.nets.Dictionary((2, 3), norm=0.5)
    indices = jnp.asarray([[0, 3], [2, 1], [9, 4], [5, 5], [7, 0]], jnp.int32)
    sparse = Rows(jnp.abs(normal(B, 2)), indices, 10)
    variables = net.init(jax.random.key(0), sparse)
    params = variables["params"]
    assert params["atoms"].shape == (10, 6)
    np.testing.assert_allclose(jnp.linalg.norm(params["atoms"], axis=1), np.full(10, 0.5), 1e-5)
    biased = {"params": {**params, "bias": normal(6)}}
    expected = np.asarray(sparse.dense()) @ np.asarray(params["atoms"]) + np.asarray(
        biased["params"]["bias"]
    )
    for z in (sparse, sparse.dense()):
        np.testing.assert_allclose(
            net.apply(biased, z), expected.reshape(B, 2, 3), rtol=1e-5, atol=1e-6
        )


def test_identity_is_the_identity():
    x = normal(B, 3, 2)
    assert ae.nets.Identity().apply({}, x) is x


NETS = {
    "mlp-encoder": ae.nets.MLP((8,)),
    "mlp-decoder": ae.nets.MLP((8,), shape=(4, 4, 1)),
    "conv": ae.nets.Conv((4,), 8),
    "deconv": ae.nets.Deconv((4, 4, 1), (4,)),
    "strided": ae.nets.Strided((4,), (4,), 8),
    "transposed": ae.nets.Transposed((4, 4, 1), (4,), features=8),
}


@pytest.mark.parametrize("net", NETS.values(), ids=NETS.keys())
def test_the_context_changes_what_a_net_computes(net):
    """Fails if a net ignores its context. An index is refused, since it is no magnitude."""
    x = normal(B, 4, 4, 1)
    labels = jnp.asarray([0, 1, 2, 0, 1])
    context = {"label": jax.nn.one_hot(labels, 3), "attribute": normal(B, 2, seed=1)}
    variables = kinds.numbers(jax.eval_shape(net.init, jax.random.key(0), x, context))
    apply = jax.jit(net.apply)
    output = apply(variables, x, context)
    for name, value in context.items():
        other = {**context, name: value + 1}
        assert not np.array_equal(apply(variables, x, other), output)
    with pytest.raises(ae.UserError, match="one_hot"):
        net.init(jax.random.key(0), x, labels)


HALF = {
    "mlp": (lambda dtype: ae.nets.MLP((16,), shape=(4, 4, 1), dtype=dtype)),
    "conv": (lambda dtype: ae.nets.Conv((4, 4), 16, dtype=dtype)),
    "deconv": (lambda dtype: ae.nets.Deconv((4, 4, 1), (4, 4), dtype=dtype)),
    "dictionary": (lambda dtype: ae.nets.Dictionary((4, 4, 1), norm=1.0, dtype=dtype)),
    "strided": (lambda dtype: ae.nets.Strided((4, 4), (4, 2), 16, dtype=dtype)),
    "transposed": (lambda dtype: ae.nets.Transposed((4, 4, 1), (4,), features=8, dtype=dtype)),
}
IMAGES = ("conv", "strided")  # encoders of images, whose output keeps the dtype


@pytest.mark.parametrize("name", HALF)
def test_bfloat16_computes_with_float32_parameters(name):
    """Fails if parameters have the dtype, or if a layer does not get it."""
    x = normal(B, 4, 4, 1) if name in IMAGES else normal(B, 16)
    whole, half = HALF[name](None), HALF[name](jnp.bfloat16)
    variables = kinds.numbers(jax.eval_shape(half.init, jax.random.key(0), x))
    for leaf in jax.tree.leaves(variables):
        assert leaf.dtype == jnp.float32
    exact, rounded = (jax.jit(net.apply)(variables, x) for net in (whole, half))
    assert rounded.dtype == (jnp.bfloat16 if name in IMAGES else jnp.float32)
    error = np.abs(np.asarray(rounded, np.float32) - np.asarray(exact))
    assert 0 < error.max() < 0.05 * np.abs(np.asarray(exact)).max()
    inputs = list(product_inputs(jax.make_jaxpr(half.apply)(variables, x).jaxpr))
    assert inputs
    assert set(inputs) == {jnp.dtype(jnp.bfloat16)}


def product_inputs(jaxpr):
    """Returns the dtypes of the inputs of products and convolutions, also in inner functions."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield from (variable.aval.dtype for variable in equation.invars)
        for inner in equation.params.values():
            if hasattr(inner, "jaxpr"):
                yield from product_inputs(inner.jaxpr)


@pytest.mark.parametrize("kind", ["vae", pytest.param("topk", marks=pytest.mark.slow)])
def test_training_in_bfloat16_stays_close_to_float32(kind):
    """Parameters, moments and losses are float32; losses differ by at most 1 % of the first."""
    losses = {}
    for dtype in (None, jnp.bfloat16):
        if kind == "vae":
            model, objective = kinds.variational(dtype=dtype), ae.elbo()
        else:
            model = ae.Autoencoder(
                ae.nets.Identity(),
                ae.TopK(64, 8, dtype=dtype),
                ae.nets.Dictionary(kinds.EVENT, dtype=dtype),
            )
            objective = ae.sparse()
        base = ae.learner(model, objective, optax.adam(3e-3))
        learner = kinds.compiled(ae.chunked(base, 30))
        state = learner.init(jax.random.key(0), kinds.batch())
        state, losses[dtype] = kinds.train(learner, state, 30)
        floats = (state.params, state.opt)
        for leaf in jax.tree.leaves(floats):
            assert leaf.dtype in (jnp.float32, jnp.int32)
    np.testing.assert_allclose(losses[jnp.bfloat16], losses[None], atol=0.01 * losses[None][0])
    assert not np.array_equal(losses[jnp.bfloat16], losses[None])
    assert losses[None].dtype == np.float32
