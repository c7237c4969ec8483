"""Tests of generation quality, against closed forms, brute force and scipy, and of paths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist, pdist

import aejax as ae
from aejax.evaluation import generation, paths
from aejax.evaluation.paths import step_ratio

GENERATOR = np.random.default_rng(0)


def whitened(size: int, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Makes points whose sample mean and covariance are given, to rounding."""
    x = GENERATOR.normal(size=(size, len(mean)))
    own = np.linalg.cholesky(np.atleast_2d(np.cov(x, rowvar=False)))
    x = (x - x.mean(0)) @ np.linalg.inv(own).T
    return x @ np.linalg.cholesky(covariance).T + mean


def covariance(size: int, seed: int) -> np.ndarray:
    root = np.random.default_rng(seed).normal(size=(size, size))
    return root @ root.T + 0.1 * np.eye(size)


class TestFrechet:
    def test_it_is_that_of_the_gaussians(self):
        """It equals scipy's sqrtm of S T for covariances that do not commute.

        Fails if the distance of means is not squared, the root is of S^1/2 T, the cross term counts
        once, or covariances are divided by N.
        """
        mean = GENERATOR.normal(size=(2, 5))
        first, second = covariance(5, 1), covariance(5, 2)
        gap = np.sum(np.square(mean[0] - mean[1]))
        exact = gap + np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
        found = generation.frechet_distance(
            whitened(40, mean[0], first), whitened(30, mean[1], second)
        )
        np.testing.assert_allclose(found, exact, rtol=1e-9)

    def test_one_dimension_and_a_singular_covariance(self):
        x = whitened(50, np.array([1.0]), np.array([[4.0]]))
        y = whitened(50, np.array([3.0]), np.array([[9.0]]))
        np.testing.assert_allclose(generation.frechet_distance(x, y), 4 + 1, rtol=1e-9)
        flat = np.concatenate([x, np.zeros_like(x)], 1), np.concatenate([y, np.zeros_like(y)], 1)
        np.testing.assert_allclose(generation.frechet_distance(*flat), 5, rtol=1e-9)
        np.testing.assert_allclose(generation.frechet_distance(x, x), 0, atol=1e-9)


class TestKernel:
    def test_it_is_brute_force(self):
        """Fails if a point's kernel with itself counts, the power is 2, or D is left out."""
        x, y = GENERATOR.normal(size=(7, 3)), GENERATOR.normal(1, 2, size=(5, 3))

        def k(a, b):
            return (a @ b / 3 + 1) ** 3

        within = [
            np.mean([k(a[i], a[j]) for i in range(len(a)) for j in range(len(a)) if i != j])
            for a in (x, y)
        ]
        across = np.mean([k(a, b) for a in x for b in y])
        np.testing.assert_allclose(
            generation.kernel_distance(x, y), sum(within) - 2 * across, rtol=1e-12
        )

    def test_blocks_change_nothing_and_it_has_no_bias(self, monkeypatch):
        """For equal distributions, the mean over many draws is 0 within 4 standard errors.

        The estimate with the diagonal is biased by 30 of them.
        """
        x, y = GENERATOR.normal(size=(2, 20, 2))
        whole = generation.kernel_distance(x, y)
        monkeypatch.setattr(generation, "BLOCK", 7)
        np.testing.assert_allclose(generation.kernel_distance(x, y), whole, rtol=1e-12)
        draws = [generation.kernel_distance(*GENERATOR.normal(size=(2, 20, 2))) for _ in range(400)]
        assert abs(np.mean(draws)) < 4 * np.std(draws) / 20


class TestPrecisionRecall:
    def test_it_is_brute_force(self, monkeypatch):
        """Fails if radii are those of the other set, a member is its own neighbour, or precision
        and recall are swapped.
        """
        monkeypatch.setattr(generation, "BLOCK", 11)
        real, generated = GENERATOR.normal(size=(60, 2)), GENERATOR.normal(0.5, 0.5, size=(40, 2))

        def covered(queries, members, k):
            radius = np.sort(cdist(members, members), axis=1)[:, k]
            return np.mean([np.any(cdist(q[None], members)[0] <= radius) for q in queries])

        for k in (1, 3, 5):
            found = generation.precision_recall(real, generated, neighbours=k)
            exact = covered(generated, real, k), covered(real, generated, k)
            np.testing.assert_allclose(found, exact, rtol=1e-12)
            assert found[0] > found[1]  # narrow samples have high precision and low recall

    def test_copies_and_strangers(self):
        real = GENERATOR.normal(size=(50, 4))
        assert generation.precision_recall(real, real) == (1.0, 1.0)
        assert generation.precision_recall(real, real + 100) == (0.0, 0.0)
        # copies of one real point: precise, and they cover only that point
        one = np.repeat(real[:1], 50, axis=0)
        assert generation.precision_recall(real, one) == (1.0, 0.02)


def test_spread_is_scipys_and_prototypes_have_none(monkeypatch):
    """Fails if the distance of a point to itself counts."""
    monkeypatch.setattr(generation, "BLOCK", 5)
    x = GENERATOR.normal(size=(23, 6))
    np.testing.assert_allclose(generation.spread(x), pdist(x).mean(), rtol=1e-12)
    assert generation.spread(np.repeat(x[:1], 9, axis=0)) == 0.0


def test_the_nearest_is_that_of_brute_force(monkeypatch):
    monkeypatch.setattr(generation, "BLOCK", 4)
    queries, real = GENERATOR.random((9, 3, 2)), GENERATOR.random((20, 3, 2))
    queries[2] = real[5]
    exact = cdist(queries.reshape(9, -1), real.reshape(20, -1)).min(axis=1)
    found = generation.nearest_distance(queries, real)
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-7)


def test_all_figures_of_examples():
    """Each score is computed from features, whatever the batch. Fails if two are swapped."""
    real, generated = GENERATOR.random((2, 30, 4, 2))

    def features(x):
        return x.reshape(len(x), -1)[:, :5]

    found = ae.evaluation.quality(features, real, generated, neighbours=2, batch=7)
    first, second = features(real), features(generated)
    np.testing.assert_allclose(found.frechet, generation.frechet_distance(first, second))
    np.testing.assert_allclose(found.kernel, generation.kernel_distance(first, second))
    shares = generation.precision_recall(first, second, neighbours=2)
    assert (found.precision, found.recall) == shares
    np.testing.assert_allclose(found.spread, generation.spread(second))


@pytest.mark.parametrize(
    ("real", "generated", "named"),
    [
        (np.zeros((5, 2)), np.zeros((5, 3)), "cannot be compared"),
        (np.zeros((5, 2)), np.zeros((1, 2)), "too few"),
        (np.full((5, 2), np.nan), np.zeros((5, 2)), "NaN or infinite"),
    ],
)
def test_bad_features_get_a_sentence(real, generated, named):
    with pytest.raises(ae.UserError, match=named):
        generation.frechet_distance(real, generated)
    with pytest.raises(ae.UserError, match="5 examples are too few"):
        generation.precision_recall(np.zeros((5, 2)), np.zeros((5, 2)), neighbours=5)


@pytest.mark.parametrize("neighbours", [0, -1])
def test_no_neighbours_have_no_distance(neighbours):
    """Fails if 0 neighbours take the first distance, or the last."""
    with pytest.raises(ae.UserError, match=f"neighbours is {neighbours}"):
        generation.precision_recall(np.eye(5), np.eye(5), neighbours=neighbours)


class TestPaths:
    def test_even_steps_have_the_ratio_one_and_a_jump_has_all(self):
        """Fails if ratios are taken over all paths together, or of squared steps."""
        even = np.linspace(0, 1, 5)[:, None] * np.ones(3)
        jump = np.repeat([0.0, 1.0], [2, 3])[:, None] * np.ones(3)
        double = np.array([0.0, 1.0, 2.0, 3.0, 5.0])[:, None] * np.ones(3)
        np.testing.assert_allclose(step_ratio(np.stack([even, jump, double])), [1, 4, 2 / 1.25])
        with pytest.raises(ae.UserError, match="all points of a path are equal"):
            step_ratio(np.zeros((1, 3, 2)))

    def test_ends_do_not_count(self):
        """The ends are real and sure, and the points between are not. Fails if an end is judged."""
        frames = np.array([[[0.0, 0.0], [0.25, 0.0], [0.5, 0.5], [1.0, 0.0]]])
        real = frames[0, [0, -1]]

        def probabilities(x):
            return np.stack([1 - x[:, 0] / 2, x[:, 0] / 2], axis=-1)

        found = paths(frames, probabilities, real)
        np.testing.assert_allclose(found.confidence, [(0.875 + 0.75) / 2])
        np.testing.assert_allclose(found.least_confidence, [0.75])
        np.testing.assert_allclose(found.distance, [(0.25 + np.sqrt(0.5)) / 2], rtol=1e-6)
        with pytest.raises(ae.UserError, match="3 or more"):
            paths(frames[:, :2], probabilities, real)
