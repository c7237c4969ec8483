"""Tests that the recorded factors of sprites agree with their pixels."""

import numpy as np
import pytest

from aejax.data import images
from aejax.data.pictures import sprites

GRID = sprites.Grid(12, 2, 3, 3, 2)


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """Prepares sprites on a coarse grid, and divides them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sprites.GRIDS, "sprites", GRID)
        return images("sprites", data_dir=tmp_path_factory.mktemp("data"), binarise="static")


def whole(splits):
    """Returns all pictures u8[N, 12, 12] and their factors i32[N, 5], in the order of the grid."""
    pixels = np.concatenate([split.arrays["image"][..., 0] for split in splits])
    columns = [np.stack(list(split.factors.values()), axis=1) for split in splits]
    factors = np.concatenate(columns)
    order = np.lexsort(factors.T[::-1])
    return pixels[order], factors[order]


def test_every_combination_is_there_once(splits):
    """Fails if the column of a factor is lost, or if two columns are swapped."""
    assert tuple(splits[0].factors) == sprites.FACTORS
    pixels, factors = whole(splits)
    wanted = np.stack(np.meshgrid(*map(np.arange, GRID.sizes), indexing="ij"), axis=-1)
    np.testing.assert_array_equal(factors, wanted.reshape(-1, 5))
    rendered = np.stack([picture for picture, _ in sprites.pictures(GRID)])
    np.testing.assert_array_equal(pixels, rendered > 0)
    assert splits[0].origin == "rendered"


def test_x_and_y_move_the_sprite(splits):
    """They move it by the grid's step, right and down. Fails if x and y are swapped."""
    table = whole(splits)[0].reshape(*GRID.sizes, 12, 12)
    np.testing.assert_array_equal(np.roll(table[..., 0, :, :, :], 2, -1), table[..., 1, :, :, :])
    np.testing.assert_array_equal(np.roll(table[..., 0, :, :], 2, -2), table[..., 1, :, :])
    assert table[..., 0, 0, :, :].any(axis=(-1, -2)).all()


def test_scale_and_orientation():
    """The largest is twice the smallest, and a quarter turn is numpy's.

    Fails if turns are clockwise.
    """
    grid = sprites.GRIDS["sprites"]
    for kind in sprites.SHAPES:
        small, large = (sprites._sprite(grid, kind, s, 0) > 0 for s in (0, grid.scales - 1))
        assert large.sum() == pytest.approx(4 * small.sum(), rel=0.2)
        first, last = (sprites._sprite(grid, kind, 3, o) for o in (0, grid.orientations - 1))
        assert np.mean(np.rot90(first) != last) < 0.02


@pytest.mark.parametrize("name", sprites.GRIDS)
def test_no_two_pictures_are_alike(name):
    """Each factor can thus be inferred. Fails with 20 orientations at 64 pixels."""
    grid = sprites.GRIDS[name]
    assert max(grid.sizes) <= 20
    seen = set()
    for kind in sprites.SHAPES:
        for scale in range(grid.scales):
            for orientation in range(grid.orientations):
                sprite = sprites._sprite(grid, kind, scale, orientation)
                # Margins are cut off, since a position may shift the sprite by any number of
                # pixels.
                box = sprite[np.ix_(sprite.any(1), sprite.any(0))]
                seen.add((box.shape, box.tobytes()))
    assert len(seen) == np.prod(grid.sizes[:3])
