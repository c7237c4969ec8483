"""Tests of the terms of regularised and adversarial autoencoders, and of MS-SSIM."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import aejax as ae
from aejax.losses.similarity import ms_ssim
from tests import kinds

ndimage = pytest.importorskip("scipy.ndimage")
D, L, B = 6, 3, 5
X = jnp.asarray(np.random.default_rng(0).random((B, D)), jnp.float32)


class PictureCritic(nn.Module):
    """Returns a logit and the hidden layer."""

    @nn.compact
    def __call__(self, values):
        hidden = nn.tanh(nn.Dense(4)(values))
        return nn.Dense(1)(hidden), hidden


def model(critic, prior=ae.priors.Standard()):
    return ae.Autoencoder(
        ae.nets.MLP((8,)),
        ae.Gaussian(L),
        ae.nets.MLP((8,), shape=D, activation=jnp.tanh),
        prior,
        ae.likelihoods.Gaussian(),
        parts={"critic": critic},
    )


def moved_by(model, term):
    """Returns name of part -> whether a term has a gradient by its parameters, and the value."""
    learner = ae.learner(model, {"term": (1.0, term)}, optax.sgd(1.0))
    state = kinds.begun(learner, ae.Batch(X, X))
    new, metrics = jax.jit(learner.step)(state, ae.Batch(X, X))
    moved = jax.tree.map(lambda a, b: bool(np.any(np.asarray(a) != b)), state.params, new.params)
    assert np.isfinite(metrics["term"])
    return {name: any(jax.tree.leaves(tree)) for name, tree in moved.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("term", "critic", "players"),
    [
        (ae.losses.latent_critic(), ae.nets.MLP((4,), shape=1), {"parts_critic"}),
        (ae.losses.codes_deceive(), ae.nets.MLP((4,), shape=1), {"encoder", "bottleneck"}),
        (ae.losses.picture_critic(), PictureCritic(), {"parts_critic"}),
        (ae.losses.pictures_deceive(), PictureCritic(), {"decoder"}),
        (ae.losses.feature_error(), PictureCritic(), {"encoder", "bottleneck", "decoder"}),
    ],
    ids=["latent_critic", "codes_deceive", "picture_critic", "pictures_deceive", "feature_error"],
)
def test_each_player_is_moved_by_its_own_terms_alone(term, critic, players):
    """Fails if a stop_gradient is missing or in the wrong place."""
    moved = moved_by(model(critic), term)
    assert {name for name, has in moved.items() if has} == players


def test_a_critic_that_decides_at_random_costs_log_2():
    """Fails if real and fake are summed and not averaged, or if a sign is wrong."""

    class Constant(nn.Module):
        @nn.compact
        def __call__(self, values):
            logit = self.param("logit", nn.initializers.zeros_init(), (1, 1))
            return jnp.broadcast_to(logit, (values.shape[0], 1)), values

    one = model(Constant())
    bound = one.bind(jax.jit(one.init)(jax.random.key(0), ae.Batch(X, X)))
    variables = {
        "params": {**bound.variables["params"], "parts_critic": {"logit": jnp.zeros((1, 1))}}
    }
    bound = one.bind(variables)
    forward = bound(ae.Batch(X, X), jax.random.key(1))
    for term in (ae.losses.picture_critic(), ae.losses.pictures_deceive()):
        np.testing.assert_allclose(term(bound, forward), np.log(2.0), rtol=1e-6)
    error = ae.losses.feature_error()(bound, forward)
    np.testing.assert_allclose(
        error, 0.5 * np.sum((np.asarray(X) - np.asarray(forward.prediction)) ** 2, 1), rtol=1e-5
    )


def test_the_decoder_slope_is_that_of_the_jacobian():
    """Fails if one column of the Jacobian is left out, or if the estimate has another mean."""
    one = model(ae.nets.MLP((4,), shape=1))
    variables = {
        "params": kinds.numbers(jax.eval_shape(one.init, jax.random.key(0), ae.Batch(X, X)))[
            "params"
        ]
    }

    @jax.jit
    def figures(keys):
        bound = one.bind(variables)
        forward = bound(ae.Batch(X, X))
        exact = ae.losses.decoder_slope(bound, forward)
        drawn = jax.vmap(lambda key: ae.losses.decoder_slope(bound, forward._replace(key=key)))(
            keys
        )
        columns = jax.vmap(jax.jacfwd(lambda z: one.bind(variables).decode(z[None])[0]))(
            forward.code.z
        )
        size = ae.losses.code_size(bound, forward)
        return exact, drawn, jnp.sum(jnp.square(columns), axis=(1, 2)), size, forward.code.z

    exact, drawn, jacobian, size, z = jax.tree.map(
        np.asarray, figures(jax.random.split(jax.random.key(0), 4000))
    )
    np.testing.assert_allclose(exact, jacobian, rtol=1e-5)
    assert np.all(np.abs(drawn.mean(0) - exact) < 4.5 * drawn.std(0) / 4000**0.5)
    np.testing.assert_allclose(size, 0.5 * (z**2).sum(1), rtol=1e-5)


def by_scipy(one, other, size, weights):
    """Computes MS-SSIM of two pictures [H, W] with scipy's correlations, in float64."""
    offset = np.arange(size) - 0.5 * (size - 1)
    window = np.exp(-0.5 * (offset[:, None] ** 2 + offset[None] ** 2) / 1.5**2)
    window /= window.sum()
    edge, value = size // 2, 1.0
    for i, weight in enumerate(weights):
        blur = lambda a: ndimage.correlate(a, window)[edge:-edge, edge:-edge]  # noqa: E731
        m, n = blur(one), blur(other)
        v, w, c = blur(one**2) - m**2, blur(other**2) - n**2, blur(one * other) - m * n
        contrast = (2 * c + 0.03**2) / (v + w + 0.03**2)
        luminance = (2 * m * n + 0.01**2) / (m**2 + n**2 + 0.01**2)
        last = i + 1 == len(weights)
        value *= np.mean(luminance * contrast if last else contrast) ** (weight / sum(weights))
        one, other = (a.reshape(a.shape[0] // 2, 2, -1, 2).mean((1, 3)) for a in (one, other))
    return value


def test_ms_ssim_is_that_of_scipy():
    """Fails if the luminance counts at every scale, or if exponents are not normalised."""
    random = np.random.default_rng(0)
    images = ndimage.gaussian_filter(random.random((3, 48, 48, 2)), (0, 1, 1, 0))
    other = np.clip(images + 0.05 * random.normal(size=images.shape), 0, 1)
    weights = (0.2, 0.3, 0.5)
    found = jax.jit(lambda a, b: ms_ssim(a, b, 7, weights))(np.float32(images), np.float32(other))
    for i in range(3):
        each = [by_scipy(images[i, ..., c], other[i, ..., c], 7, weights) for c in range(2)]
        assert float(found[i]) == pytest.approx(np.mean(each), abs=2e-5)
    with pytest.raises(ae.UserError, match="of 176 pixels or more"):
        ms_ssim(jnp.zeros((1, 48, 48, 1)), jnp.zeros((1, 48, 48, 1)))
