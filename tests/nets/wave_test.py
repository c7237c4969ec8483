"""Tests nets whose code is a map: their shapes, what they depend on, and wrong sizes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax as ae
from aejax import UserError

CONTEXT = jnp.ones((2, 3))


def shape_of(net, values, context=None):
    arguments = (values,) if context is None else (values, context)
    return jax.eval_shape(lambda key: net.init_with_output(key, *arguments)[0], KEY).shape


KEY = jax.random.key(0)


def test_sounds_become_frames_and_frames_a_map():
    encoder, decoder = ae.nets.WaveEncoder((4, 2), (5, 6)), ae.nets.WaveDecoder(7, 8, 1)
    assert shape_of(encoder, jnp.zeros((2, 64, 1)), CONTEXT) == (2, 8, 6)
    assert shape_of(decoder, jnp.zeros((2, 8, 3)), CONTEXT) == (2, 8, 7)
    with pytest.raises(UserError, match="do not divide 60 samples"):
        shape_of(encoder, jnp.zeros((2, 60, 1)))


def test_a_frame_depends_on_the_samples_near_it_alone():
    """Fails if a frame is not where its samples are."""
    net = ae.nets.WaveEncoder((4, 2), (5, 6))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 64, 1)), jnp.float32)
    variables = jax.jit(net.init)(KEY, x)
    apply = jax.jit(net.apply)
    moved = apply(variables, x.at[:, 28].add(1.0)) != apply(variables, x)
    frames = np.flatnonzero(np.any(np.asarray(moved), axis=(0, 2)))
    assert 3 in frames
    assert len(frames) <= 5
    assert frames.min() >= 1
    assert frames.max() <= 5


def test_pictures_become_maps_and_maps_pictures():
    encoder = ae.nets.SpatialEncoder((4, 6))
    decoder = ae.nets.SpatialDecoder((12, 8, 3), (4, 5))
    assert shape_of(encoder, jnp.zeros((2, 12, 8, 3))) == (2, 3, 2, 6)
    assert shape_of(decoder, jnp.zeros((2, 3, 2, 6))) == (2, 12, 8, 3)
    with pytest.raises(UserError, match="decodes maps of 4x2 to pictures of 16x8"):
        shape_of(decoder, jnp.zeros((2, 4, 2, 6)))


def test_the_maps_of_a_pyramid_and_the_logits_of_patches_are_those_of_plain_convolutions():
    """Fails if a map is that before its convolution or its relu, if the coarsest is the first, or
    if the critic's leak or its last layer is another.
    """
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), jnp.float32)
    pyramid, critic = ae.nets.Pyramid((2, 3)), ae.nets.PatchCritic((2, 3))

    def convolved(layer, values, stride):
        order = ("NHWC", "HWIO", "NHWC")
        kernel, bias = layer["kernel"], layer["bias"] + 0.5
        done = jax.lax.conv_general_dilated(
            values, kernel, (stride,) * 2, "SAME", None, None, order
        )
        return done + bias[None, None, None]

    @jax.jit
    def run(key):
        found = []
        for net in (pyramid, critic):
            params = net.init(key, x)["params"]
            moved = {k: {**v, "bias": v["bias"] + 0.5} for k, v in params.items()}
            found.append((net.apply({"params": moved}, x), params))
        (maps, layers), (logits, own) = found
        first = jax.nn.relu(convolved(layers["down_0"], x, 2))
        expected = [first, jax.nn.relu(convolved(layers["down_1"], first, 2))]
        hidden = x
        for name in ("down_0", "down_1"):
            hidden = convolved(own[name], hidden, 2)
            hidden = jnp.where(hidden > 0, hidden, 0.2 * hidden)
        return maps, expected, logits, convolved(own["judge"], hidden, 1)

    maps, expected, logits, judged = jax.tree.map(np.asarray, run(KEY))
    assert [each.shape for each in maps] == [(2, 4, 4, 2), (2, 2, 2, 3)]
    for a, b in zip(maps, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert logits.shape == (2, 2, 2, 1)
    np.testing.assert_allclose(logits, judged, rtol=1e-4, atol=1e-5)
