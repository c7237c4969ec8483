"""What a report computes of a model: against brute force and against the model itself."""

import json

import jax
import numpy as np
import optax
import pytest

import aejax as ae
from aejax import data, report
from aejax.evaluation import decoding as gather
from aejax.report import atoms, curve
from tests.report.cases import SIDE, fresh, splits, variational


def test_the_nearest_example_of_a_training_example_is_itself():
    """Fails if blocks' numbers lack their start, or if the closest is not kept over blocks."""
    rng = np.random.default_rng(1)
    x = rng.random((5_000, 4, 4, 1)).astype(np.float32)  # more than one block of 4,096
    train, *_ = data.arrays(x, validation=0.05, test=0.05)
    wanted = np.array([0, 17, 4_200, len(train) - 1])
    found = gather.nearest(train.arrays["x"][wanted], train)
    np.testing.assert_array_equal(found.index, wanted)
    np.testing.assert_allclose(found.distance, 0, atol=1e-6)
    np.testing.assert_array_equal(found.images, train.arrays["x"][wanted])


def test_the_nearest_example_is_that_of_brute_force():
    """Fails if the cross term of the squared distance loses its factor 2."""
    train, _, test = splits()
    queries = test.arrays["x"]
    found = gather.nearest(queries, train)
    apart = queries[:, None] - train.arrays["x"][None]
    distance = np.sqrt(np.square(apart).sum(axis=(2, 3, 4)))
    np.testing.assert_array_equal(found.index, distance.argmin(axis=1))
    np.testing.assert_allclose(found.distance, distance.min(axis=1), rtol=1e-5)


def test_nearest_compares_grey_values_where_training_draws_pixels():
    """Fails if the pixels that training draws are compared instead of their means."""
    rng = np.random.default_rng(2)
    train, *_ = data.arrays(rng.random((60, 4, 4, 1)).astype(np.float32), binarise="dynamic")
    found = gather.nearest(train.arrays["x"][:5], train)
    np.testing.assert_array_equal(found.index, np.arange(5))
    np.testing.assert_allclose(found.distance, 0, atol=1e-6)


def test_interpolation_ends_at_the_reconstructions_and_has_the_middle_between():
    """Fails if start and end are swapped, or if steps and pairs are reshaped in the wrong order."""
    train, _, test = splits()
    model = variational()
    variables = fresh(model, train)
    start, end = gather.chosen(test, np.arange(4)), gather.chosen(test, np.arange(4, 8))
    path = gather.interpolate(model, variables, start, end, 5)
    assert path.shape == (4, 5, SIDE, SIDE, 1)
    np.testing.assert_allclose(path[:, 0], gather.reconstruct(model, variables, start), atol=1e-6)
    np.testing.assert_allclose(path[:, -1], gather.reconstruct(model, variables, end), atol=1e-6)
    a, b = (np.asarray(gather.latent(model, variables, batch)) for batch in (start, end))
    middle = gather.decode(model, variables, (a + b) / 2)
    np.testing.assert_allclose(path[:, 2], middle, atol=1e-6)


def test_a_traversal_moves_one_latent_and_keeps_the_rest():
    """Fails if the indices of rows and dimensions are exchanged."""
    train, *_ = splits()
    model = variational()
    variables = fresh(model, train)
    latent, values = np.array([0.3, -1.0, 0.7], np.float32), np.array([-2.0, 0.5], np.float32)
    grid = gather.traverse(model, variables, latent, [2, 0], values)
    assert grid.shape == (2, 2, SIDE, SIDE, 1)
    for row, dimension in enumerate([2, 0]):
        for column, value in enumerate(values):
            moved = latent.copy()
            moved[dimension] = value
            expected = gather.decode(model, variables, moved[None])[0]
            np.testing.assert_allclose(grid[row, column], expected, atol=1e-6)


def test_the_levels_of_a_hierarchy_stand_side_by_side():
    """Fails if the lowest level comes first, or if a level is cut at another's size."""
    train, _, test = splits()
    mlp, event = ae.nets.MLP, (SIDE, SIDE, 1)
    model = ae.Autoencoder(
        mlp((8,)),
        ae.Levels((1, 2), (mlp((), (2,)), mlp((), (4,)))),
        ae.nets.Joined((mlp((3,)), None), mlp((8,), event)),
        ae.priors.Levels((mlp((), (4,)),)),
        ae.likelihoods.Bernoulli(),
    )
    learner = ae.learner(model, ae.elbo(), optax.sgd(0.0))  # init of a learner touches the prior
    start = gather.chosen(train, np.arange(4))
    variables = {"params": learner.init(jax.random.key(3), start).params}
    codes = gather.encode(model, variables, test)
    first, second = gather.latent(model, variables, gather.chosen(test, np.arange(len(test))))
    np.testing.assert_allclose(codes.mean, np.concatenate([first, second], axis=1), atol=1e-6)
    latent = np.array([0.3, -1.0, 0.7], np.float32)
    grid = gather.traverse(model, variables, latent, [0, 2], np.array([2.0], np.float32))
    top, low = np.float32([[2.0], [0.3]]), np.float32([[-1.0, 0.7], [-1.0, 2.0]])
    np.testing.assert_allclose(grid[:, 0], gather.decode(model, variables, (top, low)), atol=1e-6)


def test_samples_need_no_encoder():
    """Fails if samples touch the encoder or the bottleneck: their parameters are gone."""
    train, *_ = splits()
    model = variational()
    params = fresh(model, train)["params"]
    rest = {"params": {"decoder": params["decoder"]}}
    drawn = gather.samples(model, rest, jax.random.key(0), 9)
    assert drawn.shape == (9, SIDE, SIDE, 1)
    assert np.ptp(drawn, axis=0).max() > 0  # nine different ones
    assert drawn.min() >= 0
    assert drawn.max() <= 1  # means, not logits


def test_the_principal_plane_of_planar_points_is_a_rotation_of_them():
    """Fails if the plane is spanned by the last components, or if the points are not centred."""
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(50, 2)) * [3.0, 1.0] + [5.0, -2.0]
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0][:, :2]

    def distances(points):
        return np.linalg.norm(points[:, None] - points[None], axis=-1)

    for points in (flat, flat @ turn.T):
        plane = gather.principal(points)
        np.testing.assert_allclose(distances(plane.points), distances(flat), atol=1e-9)
        np.testing.assert_allclose(plane.points.mean(axis=0), 0, atol=1e-9)
        assert plane.share == pytest.approx(1.0)
        assert plane.points[:, 0].var() > plane.points[:, 1].var()


def test_codes_and_their_activity_are_the_posteriors(monkeypatch):
    """Fails if the KL is averaged over batches of unlike size, or over the wrong axis."""
    monkeypatch.setattr(gather, "SIZE", 5)
    train, _, test = splits()
    model = variational()
    variables = fresh(model, train)
    codes = gather.encode(model, variables, test, 12)
    batch = gather.chosen(test, np.arange(12))
    code = model.apply(variables, batch, method="posterior")
    np.testing.assert_allclose(codes.mean, code.mean, atol=1e-6)
    mean, log_std = np.asarray(code.mean, float), np.asarray(code.log_std, float)
    kl = -0.5 * (1 + 2 * log_std - mean**2 - np.exp(2 * log_std))
    np.testing.assert_allclose(codes.activity, kl.mean(axis=0), rtol=1e-4)
    np.testing.assert_array_equal(codes.labels, test.labels[:12])


def test_fitted_samples_have_the_mean_and_covariance_of_the_codes(monkeypatch):
    """Fails if the square root of the covariance is transposed, or the mean left out."""
    rng = np.random.default_rng(0)
    # Singular: one direction is never taken.
    codes = rng.normal(size=(500, 3)) @ np.array([[2.0, 1.0, 0.0], [0.0, 0.5, 0.0], [0, 0, 0]]) + 4
    monkeypatch.setattr(gather, "decode", lambda model, variables, latent, context: latent)
    drawn = np.asarray(gather.fitted_samples(None, {}, codes, jax.random.key(0), 40_000))
    np.testing.assert_allclose(drawn.mean(axis=0), codes.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(codes.T), atol=0.12)


def test_varied_examples_go_through_the_classes():
    """Fails if examples are merely the first ones."""
    labels = np.array([7, 7, 7, 2, 2, 9])
    assert labels[gather.varied(labels, 5, 6)].tolist() == [2, 7, 9, 2, 7]
    assert gather.varied(None, 3, 6).tolist() == [0, 1, 2]


@pytest.mark.parametrize("bottleneck", [ae.TopK(12, 3), ae.ReLU(12)])
def test_units_are_those_of_the_whole_code(bottleneck, monkeypatch):
    """Fails if a batch's rows are numbered from 0, or if the top of a batch replaces the others."""
    monkeypatch.setattr(atoms, "SIZE", 32)
    train, *_ = splits()
    model = ae.Autoencoder(ae.nets.Identity(), bottleneck, ae.nets.Dictionary((SIDE, SIDE, 1)))
    variables = fresh(model, train)
    found = atoms.units(model, variables, train, n=90, top=4)
    batch = gather.chosen(train, np.arange(90))
    z = np.asarray(model.apply(variables, batch, method="posterior").dense())
    np.testing.assert_allclose(found.density, (z > 0).mean(axis=0))
    np.testing.assert_array_equal(found.l0, (z > 0).sum(axis=1))
    np.testing.assert_allclose(found.strength, -np.sort(-z, axis=0)[:4].T, atol=1e-6)
    for unit in range(12):
        alive = found.strength[unit] > 0
        taken = found.top[unit][alive]
        np.testing.assert_allclose(z[taken, unit], found.strength[unit][alive], atol=1e-6)
        assert len(set(taken.tolist())) == alive.sum()


def test_the_most_telling_unit_is_the_one_whose_examples_agree():
    """Fails if units with too few active examples count, or if the order is reversed."""
    labels = np.array([0, 0, 0, 1, 1, 2])
    top = np.array([[0, 3, 5], [0, 1, 2], [0, 1, 3], [0, 1, 2]])
    strength = np.array([[3.0, 2, 1], [1, 1, 1], [3, 2, 1], [9, 9, 0]])
    found = atoms.Units(np.array([0.9, 0.1, 0.5, 0.0]), top, strength, np.ones(6))
    entropy = atoms.label_entropy(found, labels)
    third = -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))
    np.testing.assert_allclose(entropy, [np.log(3), 0, third, np.nan])
    assert atoms.most_telling(found, labels, 9).tolist() == [1, 2, 0]
    assert atoms.most_used(found, 9).tolist() == [0, 2, 1]


def test_history_reads_fields_that_only_some_lines_have(tmp_path):
    """Fails if missing fields become zeros or shift the steps of the others."""
    lines = [{"step": i, "time": 1.0, "loss": [1.0 * i, 2.0 * i]} for i in range(6)]
    lines[2]["validation_loss"] = [7.0, 8.0]
    lines[5]["validation_loss"] = [5.0, 6.0]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    for path in (tmp_path, tmp_path / "metrics.jsonl"):
        found = report.history(path)
        assert set(found) == {"loss", "validation_loss"}
        steps, values = found["validation_loss"]
        np.testing.assert_array_equal(steps, [2, 5])
        np.testing.assert_array_equal(values, [[7, 8], [5, 6]])
        assert found["loss"][1].shape == (6, 2)


@pytest.mark.parametrize("log_steps", [True, False])
def test_binned_curves_keep_means_and_the_spread_over_seeds(log_steps):
    """Fails if the spread is taken over steps instead of seeds."""
    steps = np.arange(5_000)
    values = np.stack([np.full(5_000, 1.0), steps * 0 + 3.0], axis=1)
    values[::2] += 0.5
    values[1::2] -= 0.5
    line = curve.binned((steps, values), log_steps, bins=50)
    assert len(line.steps) <= 50
    assert (np.diff(line.steps) > 0).all()
    np.testing.assert_allclose(line.mean[-1], 2.0, atol=0.05)
    np.testing.assert_allclose([line.low[-1], line.high[-1]], [1, 3], atol=0.05)


def test_parts_of_one_figure_are_drawn_together():
    """Fails if validation_loss gets a plot of its own, or if the loss is not first."""
    one = (np.arange(3), np.ones(3))
    found = curve.grouped({"grad_norm": one, "l0": one, "validation_loss": one, "loss": one})
    assert list(found) == ["loss", "l0", "grad_norm"]
    assert set(found["loss"]) == {"training batches", "validation"}
