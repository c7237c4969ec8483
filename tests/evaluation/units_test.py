"""Tests of the labels and the activity of units, on units with known examples."""

import numpy as np
import pytest

import aejax as ae
from aejax import evaluation
from aejax.evaluation import examples
from aejax.evaluation.units import TopExamples, agreement, most_telling, most_used, top_examples
from tests.report.cases import SIDE, fresh, splits

LABELS = np.repeat(np.arange(5), 40)


def _planted():
    """Makes units: of label 3; of labels 0 and 1; rare; dead; of label 4 and negative elsewhere."""
    noise = np.random.default_rng(0).random(len(LABELS))
    units = np.zeros((len(LABELS), 5))
    units[:, 0] = 0.1 * noise + (LABELS == 3)
    tens = (np.arange(len(LABELS)) % 40 < 10) & (LABELS < 2)
    units[:, 1] = 0.1 * noise + tens
    units[:7, 2] = 1.0
    units[:, 4] = np.where(LABELS == 4, noise, -10.0)
    return units


def test_planted_units_are_read():
    """Fails if the least active examples are taken, or if rare and dead units are judged."""
    found = evaluation.units(_planted(), LABELS)
    np.testing.assert_allclose(found.entropy[[0, 1, 4]], [0.0, np.log(2.0), 0.0], atol=1e-12)
    assert np.all(np.isnan(found.entropy[[2, 3]]))
    assert list(found.label) == [3, 0, -1, -1, 4]
    assert (found.judged, found.rare, found.dead) == (3, 1, 1)
    assert found.agree == pytest.approx(2 / 3)
    assert found.mean_entropy == pytest.approx(np.log(2.0) / 3)
    # With fewer examples per unit, the rare unit is judged too.
    assert evaluation.units(_planted(), LABELS, top=7).judged == 4


def test_units_that_know_nothing_have_the_labels_entropy():
    noise = np.random.default_rng(1).random((len(LABELS), 200))
    found = evaluation.units(noise, LABELS)
    assert found.agree == 0.0
    # The entropy of 20 draws from 5 labels is, to second order, (5 - 1) / (2 * 20) below log 5.
    assert found.mean_entropy == pytest.approx(np.log(5.0) - 0.1, abs=0.02)


def test_signed_units_answer_one_way_each():
    """Fails if the negative part keeps its sign, or if the mean is not subtracted."""
    units = np.array([[1.0, 5.0], [3.0, 7.0], [8.0, 3.0]])
    found = evaluation.signed(evaluation.centred(units))
    np.testing.assert_allclose(found, [[0, 0, 3, 0], [0, 2, 1, 0], [4, 0, 0, 2]])


def test_a_silent_latent_of_either_sign_stays_silent():
    """Of 60 examples, 25 have +1, 5 have -1, 30 nothing. Fails if a sparse code is centred.

    Its negative side is then judged by examples in which it is silent.
    """
    code = np.zeros((60, 1))
    code[:25], code[25:30] = 1.0, -1.0
    found = evaluation.units(evaluation.signed(code), np.repeat([0, 1, 2], [25, 5, 30]))
    assert (found.judged, found.rare) == (1, 1)
    assert list(found.label) == [0, -1]


def test_dead_everywhere_is_no_number():
    found = evaluation.units(np.zeros((30, 4)), np.zeros(30, int))
    assert (found.dead, found.judged) == (4, 0)
    assert np.isnan(found.agree)
    assert np.isnan(found.mean_entropy)


def test_shapes_that_do_not_belong_together_are_refused():
    with pytest.raises(ae.UserError, match="for the same N examples"):
        evaluation.units(np.zeros((3, 2)), np.zeros(4, int))
    with pytest.raises(ae.UserError, match="top is 20"):
        evaluation.units(np.zeros((3, 2)), np.zeros(3, int))


@pytest.mark.parametrize("bottleneck", [ae.TopK(12, 3), ae.ReLU(12)])
def test_units_are_those_of_the_whole_code(bottleneck):
    """Fails if rows are numbered from 0 in each batch, or if only the last batch's top counts."""
    train, *_ = splits()
    model = ae.Autoencoder(ae.nets.Identity(), bottleneck, ae.nets.Dictionary((SIDE, SIDE, 1)))
    variables = fresh(model, train)
    found = top_examples(model, variables, train, n=90, top=4, batch=32)
    batch = examples.chosen(train, np.arange(90))
    z = np.asarray(model.apply(variables, batch, method="posterior").dense())
    np.testing.assert_allclose(found.frequency, (z > 0).mean(axis=0))
    np.testing.assert_array_equal(found.l0, (z > 0).sum(axis=1))
    np.testing.assert_allclose(found.strength, -np.sort(-z, axis=0)[:4].T, atol=1e-6)
    for unit in range(12):
        alive = found.strength[unit] > 0
        taken = found.top[unit][alive]
        np.testing.assert_allclose(z[taken, unit], found.strength[unit][alive], atol=1e-6)
        assert len(set(taken.tolist())) == alive.sum()
    # Activations that are held as a whole give the same result.
    labels = train.labels[:90]
    whole, parts = evaluation.units(z, labels, top=4), agreement(found, labels)
    np.testing.assert_allclose(parts.entropy, whole.entropy)
    np.testing.assert_array_equal(parts.label, whole.label)
    assert parts[2:] == pytest.approx(whole[2:])


def test_the_most_telling_unit_is_the_one_whose_examples_agree():
    """Fails if units with too few active examples count, or if the order is reversed."""
    labels = np.array([0, 0, 0, 1, 1, 2])
    top = np.array([[0, 3, 5], [0, 1, 2], [0, 1, 3], [0, 1, 2]])
    strength = np.array([[3.0, 2, 1], [1, 1, 1], [3, 2, 1], [9, 9, 0]])
    found = TopExamples(np.array([0.9, 0.1, 0.5, 0.0]), top, strength, np.ones(6))
    entropy = agreement(found, labels).entropy
    third = -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))
    np.testing.assert_allclose(entropy, [np.log(3), 0, third, np.nan])
    assert most_telling(found, labels, 9).tolist() == [1, 2, 0]
    assert most_used(found, 9).tolist() == [0, 2, 1]
