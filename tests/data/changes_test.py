"""Tests of the changes of a batch against their definitions, with their keys and shapes."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import aejax as ae
from aejax.data import Batches, changed, changes
from aejax.data.to_batch import Prepare
from aejax.training.gathering import gathered

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (40, 6, 8, 1)).astype(np.uint8)
LABELS = GENERATOR.integers(0, 4, 40)


@pytest.fixture(scope="module")
def train():
    return ae.data.arrays(IMAGES / np.float32(255), LABELS, validation=4, test=4)[0]


def all_of(split) -> ae.Batch:
    return next(split.batches(len(split)))


def test_labels_as_context_and_as_target(train):
    batch = all_of(changed(train, changes.Labels(4)))
    np.testing.assert_array_equal(np.argmax(batch.context, -1), train.labels)
    np.testing.assert_array_equal(batch.context.sum(-1), 1.0)
    target = all_of(changed(train, changes.Classify())).target
    np.testing.assert_array_equal(target, train.labels)
    unlabelled = ae.data.arrays(IMAGES / np.float32(255))[0]
    with pytest.raises(ae.UserError, match="no labels"):
        all_of(changed(unlabelled, changes.Labels(4)))


def test_numbers_become_the_target_and_classes_do_not():
    x = GENERATOR.normal(size=(40, 3)).astype(np.float32)
    train = changed(ae.data.arrays(x, -x[:, :2], validation=0, test=0)[0], changes.Regress())
    batch = all_of(train)
    np.testing.assert_array_equal(batch.target, -batch.x[:, :2])
    for y, said in ((None, "has none"), (LABELS, "type int")):
        with pytest.raises(ae.UserError, match=said):
            changed(ae.data.arrays(x, y)[0], changes.Regress())


def test_attributes_are_one_hot_side_by_side_in_the_order_given():
    """Fails if attributes are sorted by name, or if an unknown one is ignored."""
    factors = {"label_shape": LABELS % 3, "label_size": LABELS % 2}
    split = ae.data.arrays(IMAGES / np.float32(255), LABELS, validation=4, test=4)[0]
    factors = {name: column[: len(split)] for name, column in factors.items()}
    split = dataclasses.replace(split, arrays={**split.arrays, **factors})
    batch = all_of(changed(split, changes.Attributes(size=2, shape=3)))
    expected = [np.eye(2)[factors["label_size"]], np.eye(3)[factors["label_shape"]]]
    np.testing.assert_array_equal(batch.context, np.concatenate(expected, axis=-1))
    with pytest.raises(ae.UserError, match=r"no attribute 'hue': .*\(shape, size\)"):
        all_of(changed(split, changes.Attributes(hue=2)))
    with pytest.raises(ae.UserError, match="name at least one"):
        changes.Attributes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            changes.Labels(3),
            "Labels has 3 classes, from 0 to 2, but row . of the data has label 3: ",
        ),
        (
            changes.Attributes(hue=1),
            "the attribute 'hue' has 1 classes, .* has label 3: .* give 4 classes",
        ),
    ],
)
def test_a_context_of_too_few_classes_is_refused(change, said, train):
    """Fails if labels beyond the last class give rows of zeros instead."""
    hues = dataclasses.replace(train, arrays={**train.arrays, "label_hue": train.labels})
    with pytest.raises(ae.UserError, match=said):
        changed(hues, change)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: changes.Masking(2.0), "Masking has share = 2.0: give a number from 0 to 1"),
        (lambda: changes.Masking(-1.0), "Masking has share = -1.0"),
        (lambda: changes.SaltAndPepper(1.5), "SaltAndPepper has share = 1.5"),
        (lambda: changes.GaussianNoise(-1.0), "GaussianNoise has std = -1.0"),
        (lambda: changes.Corrupted(0.5), "the noise of Corrupted is 0.5, which is not a function"),  # type: ignore[arg-type]
    ],
)
def test_noise_that_cannot_be_is_refused_when_it_is_made(build, said):
    """Fails if a wrong number is found only when a batch is made, or never."""
    with pytest.raises(ae.UserError, match=said):
        build()


@pytest.mark.parametrize("seen", [1, 2, 3])
def test_quadrants_divide_the_picture(seen, train):
    """Fails if upper and lower half are swapped, or if the mask marks the seen pixels."""
    whole = all_of(train).x
    batch = all_of(changed(train, changes.Quadrants(seen)))
    kept = np.zeros((6, 8), bool)
    kept[3:, :4] = True
    kept[:3, :4] |= seen >= 2
    kept[:3, 4:] |= seen == 3
    np.testing.assert_array_equal(batch.context, np.where(kept[None, ..., None], whole, 0))
    np.testing.assert_array_equal(batch.mask, np.broadcast_to(~kept[..., None], whole.shape))
    np.testing.assert_array_equal(batch.x, whole)
    alone = all_of(changed(train, changes.Quadrants(seen), changes.ContextOnly()))
    np.testing.assert_array_equal(alone.x, batch.context)
    assert alone.context is None
    with pytest.raises(ae.UserError, match="quadrants"):
        changes.Quadrants(4)


@pytest.mark.parametrize("clean", [True, False])
def test_corruption_reaches_the_target_only_where_it_is_to(clean, train):
    noise = changes.Masking(0.5)
    plain, batch = all_of(train), all_of(changed(train, changes.Corrupted(noise, clean)))
    assert not np.array_equal(batch.x, plain.x)
    np.testing.assert_array_equal(batch.target, plain.x if clean else batch.x)


def test_each_noise_has_its_moments():
    """Fails if salt is likelier than pepper, `share` is the kept share, or a std is a variance."""
    x = np.full((200, 500), 0.25, np.float32)
    key, errors = jax.random.key(0), 5 / np.sqrt(x.size)
    normal = np.asarray(changes.GaussianNoise(0.3)(key, x)) - x
    np.testing.assert_allclose([normal.mean(), normal.std()], [0.0, 0.3], atol=errors)
    salted = np.asarray(changes.SaltAndPepper(0.2)(key, x))
    shares = [(salted == value).mean() for value in (0.0, 0.25, 1.0)]
    np.testing.assert_allclose(shares, [0.1, 0.8, 0.1], atol=errors)
    masked = np.asarray(changes.Masking(0.2)(key, x))
    shares = [(masked == value).mean() for value in (0.0, 0.25)]
    np.testing.assert_allclose(shares, [0.2, 0.8], atol=errors)


def test_two_changes_have_noise_of_their_own_and_drawn_pixels_stay():
    noise = changes.Corrupted(changes.GaussianNoise(1.0))
    arrays, key = {"image": IMAGES}, jax.random.key(3)
    drawn = Prepare("image", 255.0, draws=True)
    plain = drawn(key, arrays)
    once = Prepare("image", 255.0, draws=True, changes=(noise,))(key, arrays)
    twice = Prepare("image", 255.0, draws=True, changes=(noise, noise))(key, arrays)
    np.testing.assert_array_equal(once.target, plain.x)
    first, second = once.x - plain.x, twice.x - once.x
    assert abs(np.corrcoef(np.ravel(first), np.ravel(second))[0, 1]) < 0.1
    with pytest.raises(ValueError, match="key"):
        Prepare("image", 255.0, changes=(noise,))(None, arrays)


def test_changed_batches_are_pure_in_the_step_and_compile_once(train):
    made = changed(train, changes.Corrupted(changes.SaltAndPepper(0.3)))
    assert made.prepare == changed(train, changes.Corrupted(changes.SaltAndPepper(0.3))).prepare
    batches = Batches(made, 8, seed=1)
    source = batches.source(0, 4)
    for t in range(2):
        np.testing.assert_array_equal(batches[t].x, gathered(source, t, np.int32(t)).x)
    assert not np.array_equal(batches[0].x, batches[1].x)


def test_squares_cut_the_middle_and_keep_the_grid():
    """A constant middle stays constant, whatever is around it; values keep their 256 levels."""
    x = np.zeros((2, 10, 8, 3), np.float32)
    x[:, 3:7, 2:6] = np.float32(0.5)
    square = changes.Squares(4, 2)(None, ae.Batch(x, x), {})
    np.testing.assert_allclose(square.x, 128 / 255, atol=1e-6)
    assert square.x.shape == square.target.shape == (2, 2, 2, 3)
    noisy = GENERATOR.random((2, 10, 8, 3), np.float32)
    found = np.asarray(changes.Squares(8, 5)(None, ae.Batch(noisy, noisy), {}).x) * 255
    np.testing.assert_allclose(found, np.round(found), atol=1e-4)
    with pytest.raises(ae.UserError, match="9 pixels"):
        changes.Squares(9, 4)(None, ae.Batch(x, x), {})
