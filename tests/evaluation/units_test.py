"""What units stand for, on units that are planted."""

import numpy as np
import pytest

import aejax as ae
from aejax import evaluation

LABELS = np.repeat(np.arange(5), 40)


def _planted():
    """Units: of label 3; of labels 0 and 1 alike; rare; dead; of label 4, negative elsewhere."""
    noise = np.random.default_rng(0).random(len(LABELS))
    units = np.zeros((len(LABELS), 5))
    units[:, 0] = 0.1 * noise + (LABELS == 3)
    tens = (np.arange(len(LABELS)) % 40 < 10) & (LABELS < 2)
    units[:, 1] = 0.1 * noise + tens
    units[:7, 2] = 1.0
    units[:, 4] = np.where(LABELS == 4, noise, -10.0)
    return units


def test_planted_units_are_read():
    """Fails if the least active examples are taken, or rare and dead units are judged."""
    found = evaluation.units(_planted(), LABELS)
    np.testing.assert_allclose(found.entropy[[0, 1, 4]], [0.0, np.log(2.0), 0.0], atol=1e-12)
    assert np.all(np.isnan(found.entropy[[2, 3]]))
    assert list(found.label) == [3, 0, -1, -1, 4]
    assert (found.judged, found.rare, found.dead) == (3, 1, 1)
    assert found.agree == pytest.approx(2 / 3)
    assert found.mean_entropy == pytest.approx(np.log(2.0) / 3)
    # Fewer examples make the rare unit one to judge.
    assert evaluation.units(_planted(), LABELS, top=7).judged == 4


def test_units_that_know_nothing_have_the_labels_entropy():
    noise = np.random.default_rng(1).random((len(LABELS), 200))
    found = evaluation.units(noise, LABELS)
    assert found.agree == 0.0
    # The entropy of 20 draws from 5 labels is, to second order, (5 - 1) / (2 * 20) below log 5.
    assert found.mean_entropy == pytest.approx(np.log(5.0) - 0.1, abs=0.02)


def test_signed_units_answer_one_way_each():
    """Fails if the negative part keeps its sign, or the mean is not taken away."""
    units = np.array([[1.0, 5.0], [3.0, 7.0], [8.0, 3.0]])
    found = evaluation.signed(units)
    np.testing.assert_allclose(found, [[0, 0, 3, 0], [0, 2, 1, 0], [4, 0, 0, 2]])


def test_dead_everywhere_is_no_number():
    found = evaluation.units(np.zeros((30, 4)), np.zeros(30, int))
    assert (found.dead, found.judged) == (4, 0)
    assert np.isnan(found.agree)
    assert np.isnan(found.mean_entropy)


def test_principal_components_agree_with_scikit_learn():
    """Fails if the data is not centred, or directions are columns."""
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


def test_shapes_that_do_not_belong_together_are_refused():
    with pytest.raises(ae.UserError, match="do not belong together"):
        evaluation.units(np.zeros((3, 2)), np.zeros(4, int))
    with pytest.raises(ae.UserError, match="top is 20"):
        evaluation.units(np.zeros((3, 2)), np.zeros(3, int))
    with pytest.raises(ae.UserError, match="9 components"):
        evaluation.principal(np.zeros((3, 2)), 9)
