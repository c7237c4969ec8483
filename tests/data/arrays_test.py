"""Tests of a user's own arrays: their values, their division, and what is refused."""

import numpy as np
import pytest

from aejax.data import arrays
from aejax.errors import UserError


def test_every_example_is_in_one_part():
    """x and y stay together. Fails if parts overlap, or if y is permuted differently."""
    x = np.arange(100.0)[:, None]
    parts = arrays(x, np.arange(100))
    assert [len(part) for part in parts] == [80, 10, 10]
    for part in parts:
        np.testing.assert_array_equal(part.arrays["x"][:, 0], part.labels)
        assert part.arrays["x"].dtype == np.float32
        assert part.prepare(None, part.arrays).x.dtype == np.float32
    seen = np.concatenate([part.labels for part in parts])
    np.testing.assert_array_equal(np.sort(seen), np.arange(100))


def test_division_is_seeded():
    """Fails if the seed is not used, or if the division is not the same each time."""
    x = np.arange(100.0)[:, None]
    first, again, other = (arrays(x, seed=seed)[2].arrays["x"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_numbers_of_examples_in_the_place_of_shares():
    parts = arrays(np.zeros((50, 2)), validation=7, test=0.5)
    assert [len(part) for part in parts] == [18, 7, 25]


def test_values_pass_unchanged():
    """bfloat16 and integers are kept as they are. Fails if they are scaled."""
    import jax.numpy as jnp

    x = jnp.linspace(-3, 700, 20, dtype=jnp.bfloat16)[:, None]
    train = arrays(x, validation=1, test=1)[0]
    assert set(train.arrays["x"][:, 0]) <= set(np.asarray(x, np.float32)[:, 0])
    levels = np.arange(20, dtype=np.uint8)[:, None] * 12
    train = arrays(levels, validation=1, test=1)[0]
    np.testing.assert_array_equal(train.prepare(None, train.arrays).x, train.arrays["x"])


X = np.full((20, 3), 0.5)


@pytest.mark.parametrize(
    ("x", "options", "says"),
    [
        (np.where(np.arange(60).reshape(20, 3) == 22, np.nan, X), {}, "row 7 of x holds NaN"),
        (
            np.where(np.arange(60).reshape(20, 3) == 22, np.inf, X),
            {},
            "row 7 of x holds NaN or an inf",
        ),
        (X * 4, {"binarise": "dynamic"}, r"row 0 of x holds 2, .* outside \[0, 1\]"),
        (X - 1, {"binarise": "static"}, r"row 0 of x holds -0.5, .*outside"),
        (X, {"y": np.zeros(19)}, "x has 20 examples, but y has 19"),
        (X, {"y": ["a"] * 20}, "y has dtype"),
        (X[:, 0], {}, r"x has shape \(20,\)"),
        (X[:3], {}, "3 examples, too few"),
        (X, {"validation": 0}, "0 to validation"),
        (X, {"validation": 10, "test": 10}, "the rest to train"),
        (X, {"test": -0.2}, "-4 to test"),
    ],
)
def test_refused_in_one_sentence(x, options, says):
    """Fails if one of the checks is left out."""
    with pytest.raises(UserError, match=says) as raised:
        arrays(x, **options)
    assert "\n" not in str(raised.value)
