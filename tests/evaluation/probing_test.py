"""Tests of probes, absorption and shared latents on planted cases, whose results are known."""

import numpy as np
import pytest
from scipy.optimize import minimize

from aejax.errors import UserError
from aejax.evaluation.absorption import absorbed, absorption
from aejax.evaluation.logistic import balanced_accuracy, logistic
from aejax.evaluation.probing import best_columns, probe
from aejax.evaluation.uniqueness import shared_latents

RNG = np.random.default_rng(0)


def test_the_regression_minimises_its_loss():
    """Fails if the bias is penalised, or if the classes are not balanced."""
    x = RNG.normal(size=(300, 3)) * [1.0, 5.0, 0.1] + 2.0
    y = x[:, 0] + RNG.normal(size=300) > 3.5
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    weight = np.where(y, 150 / y.sum(), 150 / (~y).sum())

    def loss(w):
        margin = np.where(y, 1, -1) * (z @ w[:3] + w[3])
        return weight @ np.logaddexp(0, -margin) + 0.5 * w[:3] @ w[:3]

    wanted = minimize(loss, np.zeros(4), tol=1e-10).x
    found = logistic(x, y)
    np.testing.assert_allclose(found.score(x), z @ wanted[:3] + wanted[3], atol=1e-3)
    doubled = logistic(2.0 * x - 7.0, y)
    np.testing.assert_allclose(doubled.score(2.0 * x - 7.0), found.score(x), atol=1e-9)
    apart = logistic(np.where(y, 1.0, 0.0)[:, None], y)  # separable
    assert balanced_accuracy(apart.score(np.where(y, 1.0, 0.0)[:, None]) > 0, y) == 1.0


def test_balanced_accuracy_by_hand():
    truth = np.array([True, True, False, False, False, False])
    found = np.array([True, False, False, False, False, True])
    assert balanced_accuracy(found, truth) == pytest.approx(0.5 * (1 / 2 + 3 / 4))
    assert np.isnan(balanced_accuracy(found, np.ones(6, bool)))


def planted(n=600):
    """Class 0 sets column 3, class 1 columns 5 and 6 at random; class 2 is rare; others are -1."""
    labels = RNG.choice([0, 1, -1, 2], n, p=[0.3, 0.3, 0.39, 0.01])
    x = np.abs(RNG.normal(size=(n, 10))) * 0.1
    x[labels == 0, 3] += 1.0
    which = RNG.integers(0, 2, n)
    x[(labels == 1) & (which == 0), 5] += 1.0
    x[(labels == 1) & (which == 1), 6] += 1.0
    return x, labels


def test_probes_find_the_planted_columns():
    """Fails if rare classes are probed, or if columns are chosen by means without their spread."""
    (x, labels), (other, truth) = planted(), planted()
    x[:, 0] *= 1e4
    other[:, 0] *= 1e4
    one = probe(x, labels, other, truth, k=1)
    np.testing.assert_array_equal(one.classes, [0, 1])
    assert one.columns[0].tolist() == [3]
    assert one.each[0] == 1.0
    assert one.columns[1][0] in (3, 5, 6)
    assert 0.6 < one.each[1] < 1.0
    three = probe(x, labels, other, truth, k=3)
    assert set(three.columns[1].tolist()) == {3, 5, 6}
    assert three.accuracy == 1.0
    assert probe(x, labels, other, truth).accuracy == 1.0
    shuffled = RNG.permutation(truth)
    assert abs(probe(x, RNG.permutation(labels), other, shuffled, k=3).accuracy - 0.5) < 0.12
    assert best_columns(x, labels == 0, 2)[0] == 3


def test_a_dense_probe_does_not_fit_noise():
    """Fails if the ridge penalty of a probe of all columns is not chosen."""
    rng = np.random.default_rng(0)

    def drawn(n=240):
        labels = rng.integers(0, 2, n)
        return rng.normal(size=(n, 200)) + 0.2 * labels[:, None], labels

    (x, y), (other, truth) = drawn(), drawn(2_000)
    found = probe(x, y, other, truth)
    assert found.ridge > 1.0
    one = logistic(x, y == 1)
    weak = balanced_accuracy(one.score(other) > 0, truth == 1)
    assert found.accuracy > weak + 0.02


def words(n=800):
    """Letter 0 has the latent 0, which latent 3 absorbs for a quarter of its words.

    Letter 1 has latent 1. Latent 2 is active at random, along no letter.
    """
    letters = RNG.integers(0, 3, n)
    rows = np.eye(6)[[0, 1, 4, 0, 5]]
    rows[3] = [0.8, 0, 0, 0.6, 0, 0]
    codes = np.zeros((n, 5))
    codes[letters == 0, 0] = 1.0
    codes[letters == 1, 1] = 1.0
    codes[:, 2] = RNG.random(n)
    gone = np.zeros(n, bool)
    gone[np.flatnonzero(letters == 0)[::4]] = True
    codes[gone, 0], codes[gone, 3] = 0.0, 1.5
    x = codes @ rows + 0.01 * RNG.normal(size=(n, 6))
    return x, letters, codes, rows, gone, np.arange(n) % 2 == 0


def test_absorption_finds_the_planted_share():
    """Fails if words at which a main latent is active count, or if the cosine is not tested."""
    x, letters, codes, rows, gone, train = words()
    found = absorption(x, letters, codes, rows, train)
    np.testing.assert_array_equal(found.letters, [0, 1, 2][: len(found.letters)])
    assert found.main[0].tolist() == [0]
    tested = (letters == 0) & ~train
    assert found.each[0] == pytest.approx(gone[tested].mean())
    assert found.each[1] == 0.0
    assert found.probe > 0.9
    away = rows.copy()
    away[3] = [0, 0, 0, 1, 0, 0]  # the other latent does not carry the letter
    assert absorption(x, letters, codes, away, train).each[0] == 0.0
    # Along the letter itself: the share that is carried and the direction are both tested.
    unit, main = np.eye(6)[0], np.array([0])
    np.testing.assert_array_equal(absorbed(x, codes, rows, unit, main), gone)
    weak, strong = rows.copy(), codes.copy()
    weak[3] = [0.01, 0, 0, 1, 0, 0]  # it carries the letter by its size, not by its direction
    strong[gone, 3] = 150.0
    assert not absorbed(x, strong, weak, unit, main).any()
    small = codes.copy()
    small[gone, 3] = 0.5  # 0.4 of the letter, of which the activation holds 1.2
    assert not absorbed(x, small, rows, unit, main).any()
    both = codes.copy()
    both[gone, 0] = 0.1  # the main latent is not silent
    assert absorption(x, letters, both, rows, train).each[0] == 0.0


def test_latents_are_shared_up_to_their_order():
    """Fails if a row and its opposite count as one feature, or if a row may be matched twice."""
    rows = np.linalg.qr(RNG.normal(size=(12, 12)))[0]
    order = RNG.permutation(12)
    other = 3.0 * rows[order]
    found = shared_latents(rows, other)
    assert (found.share, found.unique) == (1.0, 0.0)
    np.testing.assert_array_equal(order[found.match], np.arange(12))
    np.testing.assert_allclose(found.cosine, 1.0)
    other[np.flatnonzero(order == 5)] *= -1.0
    assert shared_latents(rows, other).share == pytest.approx(11 / 12)
    assert shared_latents(rows[[0, 0, 1]], rows).share == pytest.approx(2 / 3)
    # The opposite row is no match, so that the partner with a cosine of 0.8 is.
    against = np.stack([-rows[0], 0.8 * rows[0] + 0.6 * rows[1]])
    assert shared_latents(rows[:1], against).cosine == pytest.approx([0.8])
    few = shared_latents(rows, rows[:4])
    assert few.share == pytest.approx(4 / 12)
    assert np.isnan(few.cosine[4:]).all()


def test_what_does_not_fit_is_refused():
    x, labels = planted(100)
    with pytest.raises(UserError, match="k is 11: give a number from 1 to 10"):
        probe(x, labels, x, labels, k=11)
    with pytest.raises(UserError, match="no class has 1000 examples"):
        probe(x, labels, x, labels, fewest=1000)
    with pytest.raises(UserError, match="train has 10 columns and test 9"):
        probe(x, labels, x[:, :9], labels)
    with pytest.raises(UserError, match="one class"):
        logistic(x, np.ones(100, bool))
    with pytest.raises(UserError, match="do not belong together"):
        absorption(x, labels, x, np.eye(9), labels > 0)
    with pytest.raises(UserError, match="no letter has 10 words"):
        absorption(x[:9], np.zeros(9, int), x[:9], np.eye(10), np.arange(9) > 4)
    with pytest.raises(UserError, match="same is 2"):
        shared_latents(x, x, same=2)
