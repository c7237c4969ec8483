"""Tests of division by groups: none is divided; groups of one example are like no groups."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aejax.data.order import permutation
from aejax.data.splitting import divide
from aejax.errors import UserError

SHARES = {"validation": 0.2, "test": 0.1}


def rows(examples, seed=0, groups=None, shares=SHARES):
    columns = {"row": np.arange(examples)}
    return [part["row"] for part in divide(columns, "it", shares=shares, seed=seed, groups=groups)]


@given(st.lists(st.integers(0, 40), min_size=60, max_size=90), st.integers(0, 2**20))
@settings(max_examples=20, deadline=None)
def test_no_group_is_divided(groups, seed):
    """Fails if groups are cut, an example is lost, or a part lacks a group that would fit."""
    groups = np.array([*groups, *range(41, 81)], np.int32)
    parts = rows(len(groups), seed, groups)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(groups)))
    of = [set(groups[part]) for part in parts]
    assert sum(map(len, of)) == len(set.union(*of))
    sizes = np.bincount(groups)
    for part, share in zip(parts[1:], SHARES.values(), strict=True):
        lacking = round(share * len(groups)) - len(part)
        assert lacking >= 0
        assert lacking == 0 or all(sizes[group] > lacking for group in of[0])
    for part in parts:
        assert np.all(np.diff(part) > 0)


def test_groups_of_one_are_examples():
    """Fails if the order of groups is not the seed's permutation, or parts are swapped."""
    plain = rows(50, seed=3)
    for part, grouped in zip(plain, rows(50, seed=3, groups=np.arange(50)), strict=True):
        np.testing.assert_array_equal(part, grouped)
    cuts = np.split(permutation(50, 3, 0), [35, 45])
    for part, cut in zip(plain, cuts, strict=True):
        np.testing.assert_array_equal(part, np.sort(cut))


def test_too_few_groups_are_named():
    with pytest.raises(
        UserError,
        match=r"no group of it fits into the 6 .* for val.*: there are 2 groups of 15 to 15 ",
    ):
        rows(30, groups=np.arange(30) // 15)
