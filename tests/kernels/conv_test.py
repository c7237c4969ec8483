"""Tests of convolutions against `jax.lax`: values, both kinds of derivatives, several models.

These mutants fail: the kernel not reversed, its channels not swapped, the two sides of the padding
swapped, a phase's offset with the other sign, members folded into the examples, no phases, a
precision that is not passed on.
"""

from __future__ import annotations

import functools
import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from aejax.kernels import conv
from aejax.kernels.conv import convolve, convolve_transposed
from aejax.nets.convolution import Convolution, TransposedConvolution

ORDER = ("NHWC", "HWIO", "NHWC")
SPREAD = ((2, 2), (2, 2))
# Image, kernel, strides, padding, spacing of the image, dilation of the kernel.
WINDOWS = {
    "same": ((6, 5), (3, 3), (1, 1), "SAME", (1, 1), (1, 1)),
    "strided": ((9, 8), (4, 3), (2, 1), "SAME", (1, 1), (1, 1)),
    "one-sided": ((5, 6), (2, 3), (1, 1), ((1, 0), (2, 1)), (1, 1), (1, 1)),
    "spread": ((4, 5), (4, 3), (1, 1), SPREAD, (2, 2), (1, 1)),
    "spread along one axis": ((4, 5), (3, 3), (1, 2), SPREAD, (3, 1), (1, 1)),
    "dilated": ((8, 7), (3, 2), (2, 1), "VALID", (1, 1), (2, 3)),
    "cut": ((6, 7), (3, 3), (2, 2), ((0, 0), (-1, 1)), (2, 2), (2, 1)),
}


def case(name, members=None):
    """Returns our function and lax's, both of images and kernel, and random arguments."""
    image, kernel, strides, padding, spread, dilation = WINDOWS[name]
    rng = np.random.default_rng(0)
    lead = () if members is None else (members,)
    arrays = (
        jnp.asarray(rng.normal(size=(*lead, *shape)), jnp.float32)
        for shape in ((3, *image, 2), (*kernel, 2, 4))
    )

    def ours(x, w):
        return convolve(x, w, strides, padding, spread, dilation)

    def lax(x, w):
        return jax.lax.conv_general_dilated(x, w, strides, padding, spread, dilation, ORDER)

    return ours, lax, *arrays


def agree(found, wanted):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max()),
        found,
        wanted,
    )


@pytest.mark.parametrize("name", WINDOWS)
def test_values_and_derivatives_are_those_of_lax(name):
    """Values, gradients and second derivatives agree."""
    ours, lax, x, w = case(name)

    @functools.partial(jax.jit, static_argnums=0)
    def everything(convolution, x, w):
        def cost(x, w):
            return jnp.sum(jnp.sin(convolution(x, w)))

        def slope(x, w):
            return sum(jnp.sum(jnp.square(g)) for g in jax.grad(cost, (0, 1))(x, w))

        forwards = jax.jvp(convolution, (x, w), (jnp.cos(x), jnp.cos(w)))
        return forwards, jax.grad(cost, (0, 1))(x, w), jax.grad(slope, (0, 1))(x, w)

    agree(everything(ours, x, w), everything(lax, x, w))


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
@pytest.mark.parametrize("name", ["strided", "spread"])
def test_members_are_those_of_a_loop(name, axes):
    """It holds for vmap of the gradient and for the gradient of vmap."""
    ours, _, x, w = case(name, members=2)
    arrays = tuple(a if axis == 0 else a[0] for a, axis in zip((x, w), axes, strict=True))

    def cost(x, w):
        return jnp.sum(jnp.sin(ours(x, w)))

    inside = jax.jit(jax.vmap(jax.grad(cost, (0, 1)), axes))(*arrays)
    outside = jax.jit(jax.grad(lambda *a: jnp.sum(jax.vmap(cost, axes)(*a)), (0, 1)))(*arrays)
    one = jax.jit(jax.grad(cost, (0, 1)))
    alone = [
        one(*(a[i] if axis == 0 else a for a, axis in zip(arrays, axes, strict=True)))
        for i in range(2)
    ]
    looped = jax.tree.map(lambda *each: jnp.stack(each), *alone)
    agree(inside, looped)
    summed = tuple(g if axis == 0 else g.sum(0) for g, axis in zip(looped, axes, strict=True))
    agree(outside, summed)


@pytest.mark.parametrize(("size", "stride"), [(4, 2), (3, 2), (2, 3), (5, 1)])
def test_transposed_is_lax_conv_transpose(size, stride):
    """It holds also for a kernel that is smaller than the stride."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 4, 5, 3)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(size, size, 3, 2)), jnp.float32)
    found = jax.jit(lambda: convolve_transposed(x, w, (stride, stride)))()
    agree(found, jax.lax.conv_transpose(x, w, (stride, stride), "SAME"))


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_layers_are_those_of_flax(dtype):
    """Parameters have the same names and shapes, and outputs agree."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 5, 3)), jnp.float32)
    pairs = [
        (Convolution(4, (3, 3), 2, dtype=dtype), nn.Conv(4, (3, 3), 2, dtype=dtype)),
        (
            TransposedConvolution(4, (4, 4), (2, 2), dtype),
            nn.ConvTranspose(4, (4, 4), (2, 2), dtype=dtype),
        ),
    ]
    for ours, theirs in pairs:
        variables = theirs.init(jax.random.key(0), x)
        agree(ours.init(jax.random.key(0), x), variables)
        found, wanted = ours.apply(variables, x), theirs.apply(variables, x)
        assert found.dtype == wanted.dtype
        tolerance = 1e-5 if dtype is None else 2e-2
        found, wanted = (np.asarray(a, np.float32) for a in (found, wanted))
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def test_every_convolution_of_a_training_loop_is_in_the_form_of_the_fast_routine():
    """Three members on a CPU. Fails for lax's own convolution, whose derivatives swap axes.

    Grouped convolutions, those of spaced images, and those with a reversed window have no fast
    routine.
    """
    mine = [Convolution(4, (3, 3), 2), TransposedConvolution(2, (4, 4), (2, 2))]
    layers = [nn.Conv(4, (3, 3), 2), nn.ConvTranspose(2, (4, 4), (2, 2))]
    order = "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"

    def fast(each):
        ones = "lhs_dilate" not in each or "lhs_dilate = [1, 1]" in each
        alone = "feature_group_count = 1" in each and "batch_group_count = 1" in each
        return order in each and ones and alone and "reverse = [true" not in each

    assert all(map(fast, loop(mine, "cpu")))
    assert not all(map(fast, loop(layers, "cpu")))


def test_members_are_one_grouped_convolution_elsewhere():
    """Other platforms compute the same numbers.

    Fails if they compute members one after the other.
    """
    found = loop([Convolution(4, (3, 3), 2), TransposedConvolution(2, (4, 4), (2, 2))], "tpu")
    assert any("feature_group_count = 3" in each for each in found)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(3, 2, 4, 5, 2)), jnp.float32)
    kernels = jnp.asarray(rng.normal(size=(3, 4, 4, 2, 3)), jnp.float32)
    how = {"window": (conv.Axis(1, (2, 2), 2, 1),) * 2, "precision": None}
    agree(conv._together(images, kernels, **how), conv._in_turn(images, kernels, **how))


def loop(layers, platform):
    """Returns the convolutions in the compiled text of a loop of steps with three members."""

    def cost(params, x):
        for layer, own in zip(layers, params, strict=True):
            x = layer.apply(own, x)
        return jnp.sum(jnp.square(x))

    def step(_, both):
        return jax.tree.map(jnp.subtract, both, jax.vmap(jax.grad(cost, (0, 1)))(*both))

    shapes = [(3, 3, 3, 4), (4, 4, 4, 2)]
    params = [
        {"params": {"kernel": jnp.zeros((3, *shape)), "bias": jnp.zeros((3, shape[-1]))}}
        for shape in shapes
    ]
    program = jax.jit(lambda *both: jax.lax.fori_loop(0, 3, step, both))
    traced = program.trace(params, jnp.zeros((3, 2, 8, 8, 3)))
    found = re.findall(
        r"stablehlo.convolution.*", traced.lower(lowering_platforms=(platform,)).as_text()
    )
    assert len(found) >= 6
    return found


def test_precision_is_that_of_the_call():
    """Fails if precision is read when the program is compiled, or is not passed on."""
    ours, _, x, w = case("same")

    def within(x, w):
        with jax.default_matmul_precision("highest"):
            return ours(x, w)

    def given(x, w):
        return convolve(x, w, (1, 1), "SAME", precision="highest")

    # This overrides a precision that other tests have set for the process.
    with jax.default_matmul_precision("default"):
        for convolution in (within, given):
            slope = jax.jit(jax.grad(lambda x, w, c=convolution: jnp.sum(jnp.sin(c(x, w))), (0, 1)))
            found = re.findall(r"stablehlo.convolution.*", slope.lower(x, w).as_text())
            assert len(found) == 3
            assert all("HIGHEST" in each for each in found)
        assert "HIGHEST" not in jax.jit(ours).lower(x, w).as_text()


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (functools.partial(nn.Conv, 4, (3, 3), feature_group_count=2), (2, 5, 4, 2)),
        (functools.partial(nn.Conv, 4, (3,)), (2, 5, 2)),
        (functools.partial(nn.Conv, 4, (3, 3), padding="VALID"), (2, 2, 5, 2)),
        (functools.partial(nn.Conv, 4, (3, 3), 2), (0, 5, 4, 2)),
    ],
)
def test_what_has_no_faster_form_is_lax(layer, shape):
    """Groups, other ranks and empty arrays use lax. Fails if flax's arguments are not passed on."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    variables = layer().init(jax.random.key(0), x)
    ours = layer(conv_general_dilated=convolve)
    np.testing.assert_allclose(
        ours.apply(variables, x), layer().apply(variables, x), rtol=1e-5, atol=1e-5
    )


def test_members_of_no_image():
    """Fails if a shape is inferred from an empty array."""
    layer = Convolution(4, (3, 3), 2)
    variables = layer.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
    two = jax.tree.map(lambda a: jnp.stack([a, a]), variables)
    assert jax.jit(jax.vmap(layer.apply))(two, jnp.zeros((2, 0, 4, 4, 3))).shape == (2, 0, 2, 2, 4)


def test_gradients_within_a_manual_mesh():
    """Fails if the primitive is bound within a manual mesh, where it does not track varying
    axes.
    """
    ours, lax, x, w = case("same")
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    over, whole = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()

    def summed(x, w):
        return jax.lax.psum(jnp.sum(jnp.sin(ours(x, w))), "data")

    mapped = jax.shard_map(summed, mesh=mesh, in_specs=(over, whole), out_specs=whole)
    found = jax.jit(jax.grad(mapped, (0, 1)))(x, w)
    agree(found, jax.grad(lambda x, w: jnp.sum(jnp.sin(lax(x, w))), (0, 1))(x, w))


def test_calls_outside_of_a_program_compile_once(caplog):
    """Fails if each eager call compiles a program of its own."""
    ours, _, x, w = case("one-sided")
    ours(x, w)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        ours(x, w)
    assert "compilation" not in caplog.text
