"""Tests of detectors: their common contract, and each against an independent computation."""

import jax
import numpy as np
import optax
import pytest
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

import aejax as ae
from aejax import inspection
from aejax.errors import UserError
from aejax.inspection.detector import by_position, smooth
from aejax.inspection.neighbours import spread_out
from aejax.inspection.whitening import whitened

SIDE = 16


@pytest.fixture(scope="module")
def pictures():
    """Good pictures, which are a shaded stripe with noise, and the same with a bright spot."""
    random = np.random.default_rng(0)
    stripe = 80 + 60 * np.sin(np.arange(SIDE) / 2)[:, None] * np.ones(SIDE)
    shade = random.normal(1, 0.1, (120, 1, 1))
    made = shade * stripe + random.normal(0, 6, (120, SIDE, SIDE))
    made[100:, 5:8, 9:12] += 90
    made = np.clip(np.round(made), 0, 255).astype(np.uint8)[..., None]
    return made[:80], made[80:100], made[100:]


def models():
    """A plain and a variational autoencoder, untrained, and their variables."""
    found = []
    for code, further in (
        (ae.Point(4), {}),
        (
            ae.Gaussian(4),
            {"prior": ae.priors.Standard(), "likelihood": ae.likelihoods.LearnedGaussian()},
        ),
    ):
        encoder = ae.nets.SpatialEncoder((4, 6))
        model = ae.Autoencoder(encoder, code, ae.nets.MLP((8,), shape=(SIDE, SIDE, 1)), **further)
        objective = ae.elbo() if further else {"error": (1.0, ae.losses.squared_error)}
        learner = ae.learner(model, objective, optax.adam(1e-3))
        start = ae.data.arrays(np.zeros((4, SIDE, SIDE, 1), np.float32), validation=0, test=0)[0]
        state = jax.jit(learner.init)(jax.random.key(0), ae.data.Batches(start, 1)[0])
        found.append((model, learner.variables(state)))
    return found


@pytest.fixture(scope="module")
def detectors():
    plain, vae = models()
    patches = inspection.patches(4, 2)
    return {
        "principal": inspection.principal(3),
        "gaussian": inspection.gaussian(patches, 6),
        "shared": inspection.gaussian(inspection.pooled(patches), 6, by_place=False),
        "neighbours": inspection.neighbours(inspection.joined(patches, patches), 6, 200),
        "sparse": inspection.sparse(patches, latents=24, k=2, steps=150),
        "encoded": inspection.gaussian(inspection.encoded(*plain), 4),
        "plain": inspection.reconstruction(*plain),
        "elbo": inspection.negative_elbo(*vae),
        "regret": inspection.regret(*vae, steps=1),
    }


NAMES = [
    "principal",
    "gaussian",
    "shared",
    "neighbours",
    pytest.param("sparse", marks=pytest.mark.slow),  # it trains
    "encoded",
    "plain",
    "elbo",
    "regret",
]


@pytest.mark.parametrize("name", NAMES)
def test_detectors_have_one_contract(name, detectors, pictures):
    """Fails if a score depends on the batch, or a fitted detector misses a bright spot."""
    detector, (good, held_out, bad) = detectors[name], pictures
    state = detector.fit(jax.random.key(0), good)
    assert all(np.asarray(value).dtype != object for value in state.values())
    found = inspection.detect(detector, state, np.concatenate([held_out, bad]), batch=20)
    assert found.score.shape == (40,)
    assert found.map.shape == (40, SIDE, SIDE)
    alone = inspection.detect(detector, state, bad[:3], batch=20)
    np.testing.assert_allclose(alone.score, found.score[20:23], rtol=1e-4, atol=1e-4)
    if name == "regret":  # its only step lowers the cost of some pictures
        assert found.score.min() >= 0
        assert found.score.max() > 0
    if name in ("plain", "elbo", "regret"):  # these were not trained
        return
    again = detector.fit(jax.random.key(0), good)
    for key, value in state.items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(again[key]))
    if name != "encoded":  # the net is untrained
        assert found.score[20:].min() > found.score[:20].max()
        peaks = [np.unravel_index(m.argmax(), m.shape) for m in found.map[20:]]
        assert np.abs(np.median(peaks, axis=0) - [6, 10]).max() <= 2


def test_principal_residual_is_that_of_scikit_learn(detectors, pictures):
    """Fails if the mean is not subtracted, or components are of single rows."""
    detector, (good, held_out, _) = detectors["principal"], pictures
    state = detector.fit(jax.random.key(0), good)
    found = inspection.detect(detector, state, held_out, blur=0.0).map
    flat = [x.reshape(len(x), -1) / 255.0 for x in (good, held_out)]
    fitted = PCA(3, svd_solver="full").fit(flat[0])
    rest = flat[1] - fitted.inverse_transform(fitted.transform(flat[1]))
    np.testing.assert_allclose(found.reshape(20, -1), rest**2, atol=1e-5)


def test_gaussian_distance_is_that_of_numpy(detectors, pictures):
    """Fails if the covariance is that of another place, or the distance is squared."""
    detector, (good, held_out, _) = detectors["gaussian"], pictures
    state = detector.fit(jax.random.key(0), good)
    features = by_position(inspection.patches(4, 2), np.concatenate([good, held_out]))
    z = np.asarray(whitened(state, features))
    train, test = z[:80, 2, 5], z[80:, 2, 5]
    covariance = np.cov(train.T, bias=True) + 0.01 * np.eye(6)
    rest = test - train.mean(axis=0)
    expected = np.sqrt(np.sum(rest @ np.linalg.inv(covariance) * rest, axis=1))
    given = {**detector.given, **state}
    found = detector.map(given, held_out.astype(np.float32) / 255)
    np.testing.assert_allclose(found[:, 2, 5], expected, rtol=1e-3)


def test_neighbours_are_those_of_scikit_learn(detectors, pictures):
    """Fails if the distance is not to the nearest remembered patch."""
    detector, (good, held_out, _) = detectors["neighbours"], pictures
    state = detector.fit(jax.random.key(0), good)
    both = inspection.joined(*[inspection.patches(4, 2)] * 2)
    z = np.asarray(whitened(state, by_position(both, held_out)))
    nearest = NearestNeighbors(n_neighbors=1).fit(state["remembered"])
    expected = nearest.kneighbors(z.reshape(-1, z.shape[-1]))[0].reshape(z.shape[:3])
    given = {**detector.given, **state}
    found = detector.map(given, held_out.astype(np.float32) / 255)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_coreset_takes_the_farthest_row_each_time():
    """Fails if a random choice is kept; on a line the ends come second and third."""
    rows = np.arange(11.0)[:, None]
    assert spread_out(rows, 3).tolist() in ([5, 0, 10], [5, 10, 0])
    assert spread_out(rows, 20).tolist() == list(range(11))
    random = np.random.default_rng(0)
    rows = random.normal(size=(300, 4))
    rows[:3] += 30  # a small far cluster, which random choices miss
    assert {*spread_out(rows, 5)} & {0, 1, 2}


def test_maps_are_blurred_without_darker_edges():
    """Fails if zeros are assumed outside the picture, or the kernel is not normalised."""
    ones = np.ones((1, 4, 4), np.float32)
    np.testing.assert_allclose(smooth(ones, (16, 16), 1 / 8), 1.0, atol=1e-5)
    point = np.zeros((1, 16, 16), np.float32)
    point[0, 8, 8] = 1
    spread = np.asarray(smooth(point, (16, 16), 1 / 8))
    assert spread.sum() == pytest.approx(1, abs=1e-4)
    assert spread[0, 8, 9] / spread[0, 8, 8] == pytest.approx(np.exp(-1 / 8), rel=1e-3)


def test_sparse_residual_is_what_the_largest_code_leaves(pictures):
    """Fails if more latents are active, a bias is left out, or maps and codes differ.

    The atoms are unit vectors, so that the residual is that of all pixels but the brightest.
    """
    features, shift = inspection.patches(4, 4), np.full(16, 0.1, np.float32)
    eye = np.eye(16, dtype=np.float32)
    state = {"W_enc": eye, "W_dec": eye, "b_enc": -shift, "b_dec": shift, "active": np.zeros(1)}
    x = by_position(features, pictures[0][:3]) - shift
    expected = np.sum(x**2, axis=-1) - np.square(np.max(x, axis=-1))
    codes, residual = inspection.explain(features, state, pictures[0][:3])
    np.testing.assert_array_equal((codes > 0).sum(axis=-1), 1)
    np.testing.assert_allclose(residual, expected, rtol=1e-4)
    detector = inspection.sparse(features)
    given = {**detector.given, **state}
    found = detector.map(given, pictures[0][:3].astype(np.float32) / 255)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.slow
def test_sparse_sweep_trains_each_k(pictures):
    """Fails if all members get the same number of active latents, or usage is not a share."""
    good = pictures[0]
    fit = inspection.sparse_sweep(inspection.patches(4, 2), (1, 4), latents=24, steps=40)
    states = fit(jax.random.key(1), good)
    for k, state in zip((1, 4), states, strict=True):
        codes, rest = inspection.explain(inspection.patches(4, 2), state, good[:5])
        assert (codes > 0).sum(axis=-1).max() <= k
        assert rest.shape == codes.shape[:3]
        assert state["usage"].sum() <= k + 1e-3
    error = [inspection.explain(inspection.patches(4, 2), s, good)[1].mean() for s in states]
    assert error[1] < error[0]


def test_refusals_of_detectors(detectors, pictures):
    good = pictures[0]
    with pytest.raises(UserError, match=r"give one or more as u8\[M"):
        inspection.detect(detectors["principal"], {}, good[..., 0])
    with pytest.raises(UserError, match="patches of 32x32 pixels do not fit"):
        inspection.gaussian(inspection.patches(32)).fit(jax.random.key(0), good)
    for odd, words in (
        (inspection.Detector(lambda key, good: {}, lambda state, x: x), "map has shape"),
        (
            inspection.Detector(lambda key, good: {}, lambda state, x: x[..., 0], lambda *_: 1.0),
            r"score has shape \(\)",
        ),
    ):
        with pytest.raises(UserError, match=words):
            inspection.detect(odd, {}, good[:2])
    dense = inspection.network(lambda _, x: x.reshape(len(x), -1), ())
    with pytest.raises(UserError, match="give a convolutional net without a dense layer"):
        inspection.gaussian(dense).fit(jax.random.key(0), good)
    with pytest.raises(UserError, match="features of all good pictures are equal"):
        inspection.gaussian(inspection.patches(4)).fit(jax.random.key(0), np.zeros_like(good))
    plain = models()[0]
    with pytest.raises(UserError, match="not the code of a variational autoencoder"):
        inspection.detect(inspection.negative_elbo(*plain), {}, good[:2])
