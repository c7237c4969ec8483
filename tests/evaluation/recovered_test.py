"""Tests of recovered losses and of explained variance by position, on cases known by hand."""

import numpy as np
import pytest

from aejax.errors import UserError
from aejax.evaluation.recovered import explained_by_position, recovered

CLEAN = np.array([[1.0, 2.0, 9.0], [3.0, 2.0, 9.0]])
COUNTED = np.array([[True, True, False], [True, True, False]])


def test_the_share_is_of_the_mean_losses_of_counted_tokens():
    """Fails if masked tokens count, or if the shares of tokens are averaged."""
    spliced = CLEAN + np.array([[0.5, 0.0, 70.0], [0.0, 0.5, 70.0]])
    ablated = CLEAN + np.array([[1.0, 4.0, 99.0], [2.0, 3.0, 99.0]])
    found = recovered(CLEAN, spliced, ablated, COUNTED)
    assert found.share == pytest.approx(1 - 0.25 / 2.5)
    assert (found.clean, found.spliced, found.ablated) == (2.0, 2.25, 4.5)
    assert found.lost == 0.25
    assert found.lost_error == 0.0  # both rows lose the same
    assert found.tokens == 4
    assert recovered(CLEAN, CLEAN, ablated, COUNTED).share == 1.0
    assert recovered(CLEAN, ablated, ablated, COUNTED).share == 0.0


def test_the_standard_error_is_that_of_the_rows():
    """Fails if tokens count as independent: the error would then fall with their number."""
    rng = np.random.default_rng(0)
    row = rng.normal(size=400)
    clean = np.zeros((400, 50))
    spliced = np.repeat(row[:, None], 50, axis=1)
    found = recovered(clean, spliced, spliced + 1, np.ones((400, 50), bool))
    assert found.lost_error == pytest.approx(row.std(ddof=1) / 20)


def test_explained_variance_is_relative_to_the_mean_of_the_position():
    rng = np.random.default_rng(0)
    position = np.repeat([0, 2], 50)
    x = rng.normal(size=(100, 4)) + 100.0 * position[:, None]
    means = np.stack([x[position == p].mean(axis=0) for p in position])
    np.testing.assert_allclose(explained_by_position(x, means, position)[[0, 2]], 0.0, atol=1e-12)
    np.testing.assert_allclose(explained_by_position(x, x, position)[[0, 2]], 1.0)
    halved = 0.5 * (x + means)
    found = explained_by_position(x, halved, position)
    np.testing.assert_allclose(found[[0, 2]], 0.75)
    assert np.isnan(found[1])


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="no token counts"):
        recovered(CLEAN, CLEAN, CLEAN, np.zeros((2, 3), bool))
    with pytest.raises(UserError, match=r"give four arrays \[R, P\]"):
        recovered(CLEAN, CLEAN[:1], CLEAN, COUNTED)
    with pytest.raises(UserError, match="do not belong together"):
        explained_by_position(CLEAN, CLEAN, np.zeros(3, int))
