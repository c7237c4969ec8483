"""Tests of the PixelCNN: which pixels a pixel sees, and that sampling agrees with scoring."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import likelihoods
from aejax.errors import UserError
from aejax.likelihoods.gated import GatedLayer
from tests.contract_test import moved


def start(event, observation, **options):
    """Makes the model of an image, variables away from zero, and conditioning maps of two
    images.
    """
    model = likelihoods.PixelCNN(
        observation, event[-1], conditioning=2, channels=8, kernel=3, **options
    )
    generator = np.random.default_rng(0)
    maps = jnp.asarray(generator.normal(size=(2, *model.shape(event))), jnp.float32)
    image = jnp.asarray(generator.random((2, *event)) < 0.5, jnp.float32)
    return model, moved(model.init(jax.random.key(0), maps, image, method="log_prob")), maps, image


def test_a_pixel_sees_all_pixels_before_it_and_no_other():
    """The Jacobian shows it, in raster order.

    Fails if a stack sees its own pixel or the rest of its row, or if there is a blind spot because
    the vertical stack does not feed the horizontal one.
    """
    model, variables, maps, image = start((3, 3, 2), likelihoods.Bernoulli(), layers=2)

    def parameters(image):
        return model.apply(variables, maps[:1], image[None], method="parameters")[0]

    # Of two images, since a unit that is inactive for one passes no gradient for all that it has
    # seen.
    slopes = jax.jit(jax.vmap(jax.jacfwd(parameters)))(image)  # [2, H, W, C, H, W, C]
    seen = np.any(np.asarray(slopes) != 0, axis=(0, 3, 6)).reshape(9, 9)
    assert np.array_equal(seen, np.tri(9, k=-1, dtype=bool))


def test_a_layer_is_figure_2_of_the_paper():
    """It equals numpy pixel by pixel, with kernels of one pixel.

    Fails without tanh, without the residual, or if a stack does not get the conditioning.
    """
    generator = np.random.default_rng(0)
    above, before, conditioning = (
        generator.normal(size=(2, 3, 4, size)).astype(np.float32) for size in (5, 5, 2)
    )
    layer = GatedLayer(5, 1, None)
    variables = jax.jit(layer.init)(jax.random.key(0), above, before, conditioning)
    variables = moved(variables)
    found = jax.jit(layer.apply)(variables, above, before, conditioning)

    def linear(name, values):
        own = variables["params"][name]
        kernel = np.float64(own["kernel"])
        return values @ kernel.reshape(kernel.shape[-2:]) + np.float64(own.get("bias", 0.0))

    def gate(values):
        return np.tanh(values[..., :5]) / (1.0 + np.exp(-values[..., 5:]))

    tall = linear("above", above)
    down = np.concatenate([np.zeros_like(tall[:, :1]), tall[:, :-1]], axis=1)
    level = linear("before", before) + linear("down", down)
    level = level + linear("condition_before", conditioning)
    expected = (
        gate(tall + linear("condition_above", conditioning)),
        before + linear("output", gate(level)),
    )
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_drawing_reads_the_rows_that_scoring_reads():
    """The mean is each pixel's expectation given the sampled pixels before it.

    The whole net on the sampled image must therefore give it again. Fails with a row too few, or if
    pixels are sampled in another order.
    """
    observation = likelihoods.DiscretisedLogistic(4)
    model, variables, maps, _ = start((6, 3, 1), observation, layers=1)
    draw = jax.jit(model.apply, static_argnames="method")
    image = draw(variables, jax.random.key(0), maps, method="sample")
    mean = draw(variables, maps, method="mean")
    expected = observation.mean(model.apply(variables, maps, image, method="parameters"))
    np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)
    assert np.ptp(image) > 0


def test_fewer_channels_of_the_map_than_none_are_refused():
    """Fails if -1 channels take all channels of the map but the last."""
    model = likelihoods.PixelCNN(likelihoods.Bernoulli(), conditioning=-1)
    image = jnp.zeros((1, 2, 2, 1))
    with pytest.raises(UserError, match="PixelCNN has conditioning = -1"):
        model.init(jax.random.key(0), image, image, method="log_prob")


def test_without_conditioning_the_map_is_not_read():
    model, variables, maps, image = start((2, 2, 1), likelihoods.Bernoulli(), layers=1)

    def log_prob(maps):
        return model.clone(conditioning=0).apply(variables, maps, image, method="log_prob")

    assert model.clone(conditioning=0).shape((2, 2, 1)) == (2, 2, 1)
    assert np.array_equal(log_prob(maps[..., :1]), log_prob(maps[..., 1:]))
