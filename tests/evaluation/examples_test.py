"""Tests of the examples that are shown or compared, against brute force."""

import numpy as np

from aejax import data
from aejax.evaluation import examples
from tests.report.cases import splits


def test_the_nearest_example_of_a_training_example_is_itself():
    """Fails if indices within a block lack the block's start, or if only the last block counts."""
    rng = np.random.default_rng(1)
    x = rng.random((5_000, 4, 4, 1)).astype(np.float32)  # more than one block of 4,096
    train, *_ = data.arrays(x, validation=0.05, test=0.05)
    wanted = np.array([0, 17, 4_200, len(train) - 1])
    found = examples.nearest(train.arrays["x"][wanted], train)
    np.testing.assert_array_equal(found.index, wanted)
    np.testing.assert_allclose(found.distance, 0, atol=1e-6)
    np.testing.assert_array_equal(found.images, train.arrays["x"][wanted])


def test_the_nearest_example_is_that_of_brute_force():
    """Fails if the cross term of the squared distance loses its factor 2."""
    train, _, test = splits()
    queries = test.arrays["x"]
    found = examples.nearest(queries, train)
    apart = queries[:, None] - train.arrays["x"][None]
    distance = np.sqrt(np.square(apart).sum(axis=(2, 3, 4)))
    np.testing.assert_array_equal(found.index, distance.argmin(axis=1))
    np.testing.assert_allclose(found.distance, distance.min(axis=1), rtol=1e-5)


def test_nearest_compares_grey_values_where_training_draws_pixels():
    """Fails if drawn pixels are compared instead of their means."""
    rng = np.random.default_rng(2)
    train, *_ = data.arrays(rng.random((60, 4, 4, 1)).astype(np.float32), binarise="dynamic")
    found = examples.nearest(train.arrays["x"][:5], train)
    np.testing.assert_array_equal(found.index, np.arange(5))
    np.testing.assert_allclose(found.distance, 0, atol=1e-6)


def test_varied_examples_go_through_the_classes():
    """Fails if the examples are just the first ones."""
    labels = np.array([7, 7, 7, 2, 2, 9])
    assert labels[examples.varied(labels, 5, 6)].tolist() == [2, 7, 9, 2, 7]
    assert examples.varied(None, 3, 6).tolist() == [0, 1, 2]
