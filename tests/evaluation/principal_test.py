"""Tests of principal components, against scikit-learn and on points in a known plane."""

import numpy as np
import pytest

import aejax as ae
from aejax import evaluation


def test_principal_components_agree_with_scikit_learn():
    """Fails if the data is not centred, or if directions are columns."""
    sklearn = pytest.importorskip("sklearn.decomposition")
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 2, 3)) * np.arange(1, 7).reshape(2, 3) + 4.0
    found = evaluation.principal(x, 3)
    reference = sklearn.PCA(3).fit(x.reshape(60, 6))
    scores, expected = evaluation.project(found, x), reference.transform(x.reshape(60, 6))
    np.testing.assert_allclose(np.abs(scores), np.abs(expected), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.variance * 60 / 59, reference.explained_variance_, rtol=1e-9)
    rebuilt = evaluation.rebuild(found, scores)
    np.testing.assert_allclose(rebuilt, reference.inverse_transform(expected), rtol=1e-9)


def test_the_principal_plane_of_planar_points_is_a_rotation_of_them():
    """Fails if the last components span the plane, or if points are not centred."""
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(50, 2)) * [3.0, 1.0] + [5.0, -2.0]
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0][:, :2]

    def distances(points):
        return np.linalg.norm(points[:, None] - points[None], axis=-1)

    for points in (flat, flat @ turn.T):
        plane = evaluation.plane(points)
        np.testing.assert_allclose(distances(plane.points), distances(flat), atol=1e-9)
        np.testing.assert_allclose(plane.points.mean(axis=0), 0, atol=1e-9)
        assert plane.share == pytest.approx(1.0)
        assert plane.points[:, 0].var() > plane.points[:, 1].var()


def test_more_components_than_dimensions_are_refused():
    with pytest.raises(ae.UserError, match="9 components"):
        evaluation.principal(np.zeros((3, 2)), 9)
