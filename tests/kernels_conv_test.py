"""Convolutions beside `jax.lax`'s own: values, derivatives of both kinds, members, and their order.

Mutants that these fail: the kernel not turned around, its channels not swapped, the two sides of
the padding exchanged, a phase's offset taken with the other sign, members folded into the examples.
"""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from aejax.kernels.conv import convolve, convolve_transposed
from aejax.nets.convolution import Convolution, TransposedConvolution

ORDER = ("NHWC", "HWIO", "NHWC")
SPREAD = ((2, 2), (2, 2))
# Image, kernel, strides, padding, spread of the image, dilation of the kernel.
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
    """Ours and lax's, both of images and kernel, and random ones."""
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
    """Forwards, backwards, and backwards again."""
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
    """Under vmap of the gradient, and under the gradient of vmap."""
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
    """Also where the kernel is smaller than the stride."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 4, 5, 3)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(size, size, 3, 2)), jnp.float32)
    found = jax.jit(lambda: convolve_transposed(x, w, (stride, stride)))()
    agree(found, jax.lax.conv_transpose(x, w, (stride, stride), "SAME"))


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_layers_are_those_of_flax(dtype):
    """The same parameters under the same names, and the same output."""
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


def test_every_convolution_of_a_training_loop_is_in_the_order_of_the_fast_routine():
    """Of three members on a CPU. Fails for lax's own, whose derivatives exchange axes.

    A grouped convolution has no fast routine, nor has one whose window is turned around.
    """
    layers = [nn.Conv(4, (3, 3), 2), nn.ConvTranspose(2, (4, 4), (2, 2))]
    mine = [Convolution(4, (3, 3), 2), TransposedConvolution(2, (4, 4), (2, 2))]

    def loop(layers):
        def cost(params, x):
            for layer, own in zip(layers, params, strict=True):
                x = layer.apply(own, x)
            return jnp.sum(jnp.square(x))

        def step(_, both):
            slopes = jax.vmap(jax.grad(cost, (0, 1)))(*both)
            return jax.tree.map(jnp.subtract, both, slopes)

        x = jnp.zeros((3, 2, 8, 8, 3))
        params = [nn.Conv(4, (3, 3), 2).init(jax.random.key(0), x[0])]
        params.append(
            nn.ConvTranspose(2, (4, 4), (2, 2)).init(jax.random.key(0), jnp.zeros((1, 4, 4, 4)))
        )
        params = jax.tree.map(lambda a: jnp.stack([a] * 3), params)
        program = jax.jit(lambda *both: jax.lax.fori_loop(0, 3, step, both))
        text = program.lower(params, x).as_text()
        convolutions = re.findall(r"stablehlo.convolution.*", text)
        assert len(convolutions) >= 6
        fast = (
            "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]",
            "feature_group_count = 1",
            "batch_group_count = 1",
        )
        return all(all(sign in each for sign in fast) for each in convolutions)

    assert loop(mine)
    assert not loop(layers)
