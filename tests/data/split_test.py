"""Tests of Split and Prepare: values, binarisation, and the batches of evaluations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.data import arrays
from aejax.data.split import check_support, fingerprint, first_not_finite, first_outside
from aejax.data.splitting import Chosen, drawn, splits
from aejax.data.to_batch import Prepare
from aejax.errors import UserError

# 24 draws of pixels of level one half, from the stream of test splits.
KNOWN_DRAWS = "010111010111100110010011"
LEVELS = np.array([0, 1, 64, 128, 254, 255], np.uint8)


def five_deviations(p, n):
    """Returns five standard deviations of the mean of n Bernoulli draws."""
    return 5 * np.sqrt(p * (1 - p) / n)


@pytest.fixture(scope="module")
def image_splits():
    """Makes three parts of 40 pictures with the given binarisation."""
    image = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1)).astype(np.uint8)
    parts = [{"image": image, "label": np.arange(40, dtype=np.int32) % 3}] * 3
    return {
        how: splits("toy", parts, field="image", scale=255.0, binarise=how)
        for how in ("dynamic", "static", "none")
    }


class TestPrepare:
    def test_scales_to_the_unit_interval(self):
        """0 and 255 become exactly 0 and 1. Fails if the scale is 256 or left out."""
        batch = Prepare("image", 255.0)(None, {"image": LEVELS[:, None]})
        assert batch.x.dtype == jnp.float32
        np.testing.assert_allclose(batch.x[:, 0], LEVELS / 255, rtol=1e-7)
        assert batch.x[0, 0] == 0
        assert batch.x[-1, 0] == 1
        assert batch.context is None

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    def test_draws_have_the_mean_of_the_level(self, dtype, key):
        """The mean is within five standard deviations.

        Fails with scale 256, with `<=` for `<` (level 0 then draws ones), or if one half of a word
        is not random.
        """
        image = np.tile(LEVELS.astype(dtype), (20_000, 1))
        x = np.asarray(Prepare("image", 255.0, draws=True)(key, {"image": image}).x)
        assert set(np.unique(x)) == {0.0, 1.0}
        p = LEVELS / 255
        assert (np.abs(x.mean(0) - p) <= five_deviations(p, len(x))).all()

    def test_draws_of_neighbours_are_independent(self, key):
        """Fails if both halves of a word are the same half, which no mean shows."""
        image = np.full((50_000, 4), 128, np.uint8)
        x = np.asarray(Prepare("image", 255.0, draws=True)(key, {"image": image}).x)
        correlations = np.corrcoef(x.T) - np.eye(4)
        assert np.abs(correlations).max() < 5 / np.sqrt(len(x))

    def test_draws_need_a_key(self):
        with pytest.raises(ValueError, match="key"):
            Prepare("image", 255.0, draws=True)(None, {"image": LEVELS[:, None]})

    def test_is_the_same_under_jit_and_vmap(self, key):
        """Fails if numpy is used in place of jnp, which cannot be traced."""
        image = np.arange(256, dtype=np.uint8)[:, None]
        for prepare in (Prepare("image", 255.0), Prepare("image", 255.0, draws=True)):
            plain = prepare(key, {"image": image}).x
            np.testing.assert_array_equal(plain, jax.jit(prepare)(key, {"image": image}).x)
            keys, images = key[None], image[None]
            np.testing.assert_array_equal(plain, jax.vmap(prepare)(keys, {"image": images}).x[0])

    def test_equal_prepares_compile_once(self):
        assert Prepare("image", 255.0) == Prepare("image", 255.0)
        assert hash(Prepare("image", 255.0)) == hash(Prepare("image", 255.0))

    def test_context(self):
        arrays_of_batch = {"image": LEVELS[:, None], "label": np.arange(6)}
        batch = Prepare("image", 255.0, context="label")(None, arrays_of_batch)
        np.testing.assert_array_equal(batch.context, np.arange(6))


class TestBinarise:
    def test_test_split_is_drawn_once(self, image_splits):
        """It is the same in every evaluation, with any key. Fails if `once` leaves test out."""
        for part in image_splits["dynamic"][1:]:
            first = np.concatenate([b.x for b in part.batches(7)])
            other = np.concatenate([b.x for b in part.batches(9, jax.random.key(5))])
            np.testing.assert_array_equal(first, other)
            assert set(np.unique(first)) == {0.0, 1.0}
            assert part.provenance()["binarise_seed"] is not None

    def test_train_is_drawn_anew(self, image_splits):
        train = image_splits["dynamic"][0]
        (first,), (other,) = train.batches(40), train.batches(40, jax.random.key(5))
        assert not np.array_equal(first.x, other.x)

    def test_parts_are_drawn_independently(self, image_splits):
        """The parts hold equal pictures. Fails if the part is not in the random stream."""
        held = [split.arrays["image"].tobytes() for split in image_splits["static"]]
        assert len(set(held)) == 3

    def test_none_keeps_the_grey_values(self, image_splits):
        for part in image_splits["none"]:
            (batch,) = part.batches(40)
            np.testing.assert_allclose(batch.x, part.arrays["image"] / 255, rtol=1e-6)
            assert part.binarised == "none"

    def test_drawn_has_the_mean_of_the_level(self):
        """Fails if the words are signed, or if the scale is 256."""
        x = np.tile(LEVELS, (20_001, 1))
        mean, p = drawn(x, 255.0, (0,)).mean(0), LEVELS / 255
        assert (np.abs(mean - p) <= five_deviations(p, len(x))).all()

    def test_drawn_is_known(self):
        """Fails if the random stream changes, which would change all recorded test results."""
        assert "".join(map(str, drawn(np.full(24, 8, np.uint8), 16.0, (2,)))) == KNOWN_DRAWS

    def test_examples_of_a_reader_are_drawn_independently(self):
        """All pictures are equal. Fails if the example is not in the random stream."""
        reader = [{"image": np.full((8, 8, 1), 128, np.uint8)}] * 6
        chosen = Chosen(reader, np.array([4, 2, 0]), "image", 255.0, (2,))
        held = [chosen[i]["image"].tobytes() for i in range(3)]
        assert len(set(held)) == 3
        assert held == [chosen[i]["image"].tobytes() for i in range(3)]

    def test_other_words_are_refused(self):
        with pytest.raises(UserError, match="'dynamic', 'static' or 'none'"):
            arrays(np.zeros((9, 2)), binarise="sometimes")  # type: ignore[arg-type]


class TestSplit:
    def test_batches_are_all_examples_in_order(self, image_splits):
        """The last batch is smaller. Fails if it is dropped."""
        train = image_splits["none"][0]
        batches = list(train.batches(16))
        assert [len(b.x) for b in batches] == [16, 16, 8]
        whole = np.concatenate([b.x for b in batches])
        np.testing.assert_allclose(whole, train.arrays["image"] / 255, rtol=1e-6)

    def test_evaluation_noise_is_fixed_and_differs_by_batch(self, image_splits):
        same = np.full((40, 4, 4, 1), 128, np.uint8)
        train = dataclasses.replace(image_splits["dynamic"][0], arrays={"image": same})
        a, b = (list(train.batches(20)) for _ in range(2))
        np.testing.assert_array_equal(a[1].x, b[1].x)
        assert not np.array_equal(a[0].x, a[1].x)

    def test_take(self, image_splits):
        train = image_splits["none"][0]
        few = train.take(5)
        assert len(few) == 5
        np.testing.assert_array_equal(few.arrays["image"], train.arrays["image"][:5])
        assert few.fingerprint != train.fingerprint
        assert train.take(99) is train
        with pytest.raises(UserError, match="give 1 or more"):
            train.take(0)

    def test_event_and_labels(self, image_splits):
        train = image_splits["dynamic"][0]
        assert train.event == (4, 4, 1)
        np.testing.assert_array_equal(train.labels, np.arange(40) % 3)
        real = arrays(np.zeros((20, 2)), np.linspace(0, 1, 20))[0]
        assert real.labels is None

    def test_batch_size_below_one(self, image_splits):
        with pytest.raises(UserError, match=r"batch size for .* is 0"):
            list(image_splits["none"][0].batches(0))


class TestChecks:
    def test_unit_interval_names_row_and_value(self):
        """The row is in the second block. Fails if the start of the block is not added."""
        x = np.full((60, 2), 0.5)
        train = arrays(x, validation=1, test=1)[0]
        check_support(train, (0.0, 1.0), rows=10)
        held = train.arrays["x"].copy()
        held[13, 1] = 1.5
        bad = dataclasses.replace(train, arrays={"x": held})
        with pytest.raises(UserError, match=r"example 13 of .*train holds 1\.5, outside \[0, 1\]"):
            check_support(bad, (0.0, 1.0), rows=10)

    def test_first_outside(self):
        assert first_outside(np.array([[0.0], [1.0]])) is None
        assert first_outside(np.array([[0.0], [-0.5], [2.0]])) == (1, -0.5)
        assert first_outside(np.array([[0.0], [np.nan]]))[0] == 1  # type: ignore[index]

    def test_first_not_finite(self):
        x = np.zeros((5, 3), np.float32)
        assert first_not_finite(x) is None
        x[3, 1] = np.nan
        x[4, 0] = np.inf
        assert first_not_finite(x) == 3
        # A sum that overflows does not mean that the data holds an infinity.
        assert first_not_finite(np.full((3, 3), 3e38, np.float32)) is None

    def test_fingerprint_is_of_the_content(self):
        """Fails if name, shape, dtype or values are not hashed."""
        x = np.arange(6, dtype=np.float32)
        alike = [{"x": x}, {"x": x[::1].copy()}, {"x": np.repeat(x, 2)[::2]}]
        assert len({fingerprint(a) for a in alike}) == 1
        others = [
            {"y": x},
            {"x": x.reshape(2, 3)},
            {"x": x.view(np.int32)},
            {"x": x + 1},
            {"x": x, "y": x},
        ]
        assert len({fingerprint(a) for a in [*alike, *others]}) == 1 + len(others)
