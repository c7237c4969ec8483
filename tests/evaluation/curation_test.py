"""Tests of what codes say of a data set: wrong labels, near duplicates and clusters."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from aejax.errors import UserError
from aejax.evaluation import curation


@pytest.fixture(scope="module")
def clusters():
    """Three clusters of 60 points, whose labels are known."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 60)
    return random.normal(size=(180, 5)) + 4 * np.eye(5)[labels], labels


def test_neighbours_are_those_of_scikit_learn(clusters, monkeypatch):
    """Fails if an example is its own neighbour, or indices are those within a block."""
    monkeypatch.setattr(curation, "BLOCK", 50)
    found, distance = curation.neighbours(clusters[0], 4)
    expected = NearestNeighbors(n_neighbors=4).fit(clusters[0]).kneighbors()
    np.testing.assert_array_equal(found, expected[1])
    np.testing.assert_allclose(distance, expected[0], rtol=1e-3)


def test_changed_labels_come_first(clusters):
    """Fails if the order is reversed, or an example votes for its own label."""
    codes, labels = clusters
    wrong = np.random.default_rng(1).choice(180, 12, replace=False)
    given = labels.copy()
    given[wrong] = (labels[wrong] + 1) % 3
    found = curation.label_suspects(codes, given, count=9)
    assert {*found.order[:12]} == {*wrong}
    np.testing.assert_array_equal(found.suggested[wrong], labels[wrong])
    assert found.score[wrong].min() > 0 > np.median(found.score)


def test_near_duplicates_are_shifted_or_brightened_copies(monkeypatch):
    """Fails if only equal pictures are found, or if a flat picture is similar to all."""
    monkeypatch.setattr(curation, "BLOCK", 16)
    random = np.random.default_rng(0)
    pictures = random.normal(size=(40, 12, 12, 1))
    pictures[36] = np.roll(pictures[3], (1, -2), axis=(0, 1))
    pictures[37] = 0.5 * pictures[8] + 2
    pictures[38] = pictures[9] + random.normal(0, 0.6, (12, 12, 1))
    pictures[39] = 0.3
    codes = random.normal(size=(40, 3))
    for copy, original in ((36, 3), (37, 8), (38, 9)):
        codes[copy] = codes[original] + 1e-3
    found = curation.near_duplicates(pictures, codes, least=0.95, candidates=6)
    assert {*zip(found.first.tolist(), found.second.tolist(), strict=True)} == {(3, 36), (8, 37)}
    np.testing.assert_allclose(found.similarity, 1, atol=1e-5)


def test_clipped_copies_are_found_by_their_thumbnails():
    """Fails if pixels that are white in a copy count, or if codes alone choose candidates."""
    random = np.random.default_rng(2)
    rough = random.uniform(0, 1, (80, 4, 4, 1))
    pictures = np.repeat(np.repeat(rough, 4, axis=1), 4, axis=2)
    pictures[79] = np.clip(1.4 * np.roll(pictures[5], 1, axis=1), 0, 1)
    assert (pictures[79] == 1).mean() > 0.2
    pictures[78, :10] = pictures[77, :10]
    pictures[77, 10:], pictures[78, 10:] = 1.0, 0.0  # white where the other is black
    codes = random.normal(size=(80, 3))
    codes[79] = codes[5] + 100
    found = curation.near_duplicates(pictures, codes, candidates=6)
    assert (found.first.tolist(), found.second.tolist()) == ([5], [79])


def test_dominant_latent_is_relative_to_its_mean():
    """Fails if a latent with large activations wins everywhere."""
    codes = np.array([[10.0, 2.0], [10.0, 1.0], [10.0, 0.0], [0.0, 0.0]])
    assert curation.dominant(codes).tolist() == [1, 0, 0, -1]


def test_refusals(clusters):
    codes, labels = clusters
    with pytest.raises(UserError, match="180 examples do not have 180 neighbours"):
        curation.neighbours(codes, 180)
    with pytest.raises(UserError, match="give one for each"):
        curation.label_suspects(codes, labels[1:])
    with pytest.raises(UserError, match="a shift of 2 pixels does not fit"):
        curation.near_duplicates(np.zeros((9, 4, 4, 1)), codes[:9])
