"""Tests of decoded examples and codes, against the model itself and known answers."""

import jax
import numpy as np
import optax

import aejax as ae
from aejax.evaluation import decoding, examples
from tests.report.cases import SIDE, fresh, splits, variational


def test_interpolation_ends_at_the_reconstructions_and_has_the_middle_between():
    """Fails if start and end are swapped, or if steps and pairs are reshaped in the wrong order."""
    train, _, test = splits()
    model = variational()
    variables = fresh(model, train)
    start, end = examples.chosen(test, np.arange(4)), examples.chosen(test, np.arange(4, 8))
    path = decoding.interpolate(model, variables, start, end, 5)
    assert path.shape == (4, 5, SIDE, SIDE, 1)
    np.testing.assert_allclose(path[:, 0], decoding.reconstruct(model, variables, start), atol=1e-6)
    np.testing.assert_allclose(path[:, -1], decoding.reconstruct(model, variables, end), atol=1e-6)
    a, b = (np.asarray(decoding.latent(model, variables, batch)) for batch in (start, end))
    middle = decoding.decode(model, variables, (a + b) / 2)
    np.testing.assert_allclose(path[:, 2], middle, atol=1e-6)


def test_a_traversal_moves_one_latent_and_keeps_the_rest():
    """Fails if rows and dimensions are swapped."""
    train, *_ = splits()
    model = variational()
    variables = fresh(model, train)
    latent, values = np.array([0.3, -1.0, 0.7], np.float32), np.array([-2.0, 0.5], np.float32)
    grid = decoding.traverse(model, variables, latent, [2, 0], values)
    assert grid.shape == (2, 2, SIDE, SIDE, 1)
    for row, dimension in enumerate([2, 0]):
        for column, value in enumerate(values):
            moved = latent.copy()
            moved[dimension] = value
            expected = decoding.decode(model, variables, moved[None])[0]
            np.testing.assert_allclose(grid[row, column], expected, atol=1e-6)


def test_the_levels_of_a_hierarchy_stand_side_by_side():
    """Fails if the lowest level comes first, or if a level has another's size."""
    train, _, test = splits()
    mlp, event = ae.nets.MLP, (SIDE, SIDE, 1)
    model = ae.Autoencoder(
        mlp((8,)),
        ae.Levels((1, 2), (mlp((), (2,)), mlp((), (4,)))),
        ae.nets.Joined((mlp((3,)), None), mlp((8,), event)),
        ae.priors.Levels((mlp((), (4,)),)),
        ae.likelihoods.Bernoulli(),
    )
    # the learner's init makes the prior's parameters
    learner = ae.learner(model, ae.elbo(), optax.sgd(0.0))
    start = examples.chosen(train, np.arange(4))
    variables = {"params": learner.init(jax.random.key(3), start).params}
    codes = decoding.encode(model, variables, test)
    first, second = decoding.latent(model, variables, examples.chosen(test, np.arange(len(test))))
    np.testing.assert_allclose(codes.mean, np.concatenate([first, second], axis=1), atol=1e-6)
    latent = np.array([0.3, -1.0, 0.7], np.float32)
    grid = decoding.traverse(model, variables, latent, [0, 2], np.array([2.0], np.float32))
    top, low = np.float32([[2.0], [0.3]]), np.float32([[-1.0, 0.7], [-1.0, 2.0]])
    np.testing.assert_allclose(grid[:, 0], decoding.decode(model, variables, (top, low)), atol=1e-6)


def test_samples_need_no_encoder():
    """The parameters of encoder and bottleneck are removed. Fails if sampling reads them."""
    train, *_ = splits()
    model = variational()
    params = fresh(model, train)["params"]
    rest = {"params": {"decoder": params["decoder"]}}
    drawn = decoding.samples(model, rest, jax.random.key(0), 9)
    assert drawn.shape == (9, SIDE, SIDE, 1)
    assert np.ptp(drawn, axis=0).max() > 0  # the nine samples differ
    assert drawn.min() >= 0
    assert drawn.max() <= 1  # they are means, not logits


def test_codes_and_their_activity_are_the_posteriors(monkeypatch):
    """Fails if the KL is averaged over batches of unequal size, or over the wrong axis."""
    monkeypatch.setattr(decoding, "SIZE", 5)
    train, _, test = splits()
    model = variational()
    variables = fresh(model, train)
    codes = decoding.encode(model, variables, test, 12)
    batch = examples.chosen(test, np.arange(12))
    code = model.apply(variables, batch, method="posterior")
    np.testing.assert_allclose(codes.mean, code.mean, atol=1e-6)
    mean, log_std = np.asarray(code.mean, float), np.asarray(code.log_std, float)
    kl = -0.5 * (1 + 2 * log_std - mean**2 - np.exp(2 * log_std))
    np.testing.assert_allclose(codes.activity, kl.mean(axis=0), rtol=1e-4)
    np.testing.assert_array_equal(codes.labels, test.labels[:12])


def test_fitted_samples_have_the_mean_and_covariance_of_the_codes(monkeypatch):
    """Fails if the root of the covariance is transposed, or if the mean is left out."""
    rng = np.random.default_rng(0)
    # The covariance is singular: codes do not vary in one direction.
    codes = rng.normal(size=(500, 3)) @ np.array([[2.0, 1.0, 0.0], [0.0, 0.5, 0.0], [0, 0, 0]]) + 4
    monkeypatch.setattr(decoding, "decode", lambda model, variables, latent, context: latent)
    drawn = np.asarray(decoding.fitted_samples(None, {}, codes, jax.random.key(0), 40_000))
    np.testing.assert_allclose(drawn.mean(axis=0), codes.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(codes.T), atol=0.12)
