"""Tests of a folder of pictures: its classes, its channels, and what is refused."""

import numpy as np
import PIL.Image
import pytest

from aejax.data import images
from aejax.errors import UserError


def write(path, level, size=(6, 5), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    PIL.Image.fromarray(np.full(shape, level, np.uint8), mode).save(path)


@pytest.fixture
def folder(tmp_path):
    """Makes 12 grey pictures of width 6 and height 5 in two classes; the grey level is their
    number.
    """
    for i in range(6):
        write(tmp_path / "cats" / f"{i}.png", i)
        write(tmp_path / "dogs" / f"{i}.png", 100 + i)
    return tmp_path


def test_subfolders_are_classes(folder):
    """Fails if width and height are swapped, or if labels follow another order."""
    parts = images(folder, binarise="none", validation=2)
    assert [len(part) for part in parts] == [9, 2, 1]
    for part in parts:
        assert part.event == (5, 6, 1)
        assert part.classes == ("cats", "dogs")
        np.testing.assert_array_equal(part.arrays["image"][:, 0, 0, 0] >= 100, part.labels == 1)
    levels = np.concatenate([part.arrays["image"][:, 0, 0, 0] for part in parts])
    np.testing.assert_array_equal(np.sort(levels), [*range(6), *range(100, 106)])
    assert images(str(folder))[0].prepare.draws


def test_one_colour_picture_makes_all_colour(folder):
    """Fails if the first file alone decides."""
    write(folder / "dogs" / "9.png", 7, mode="RGB")
    assert images(folder)[0].event == (5, 6, 3)


def test_pictures_without_classes(tmp_path):
    for i in range(10):
        write(tmp_path / f"{i}.png", i)
    (tmp_path / "notes.txt").write_text("no picture")
    train, *_ = images(tmp_path)
    assert train.labels is None
    assert len(train) == 8


def test_refused_by_name(folder):
    """Fails if sizes are not compared between files, or if damage raises another error."""
    write(folder / "dogs" / "odd.png", 7, size=(6, 4))
    with pytest.raises(UserError, match=r"odd\.png has 6x4 pixels, but .*0\.png has 6x5"):
        images(folder)
    (folder / "dogs" / "odd.png").unlink()
    write(folder / "dogs" / "cut.bmp", 7)
    cut = (folder / "dogs" / "cut.bmp").read_bytes()[:-10]
    (folder / "dogs" / "cut.bmp").write_bytes(cut)
    with pytest.raises(UserError, match=r"cut\.bmp is damaged"):
        images(folder)
    (folder / "dogs" / "cut.bmp").unlink()
    (folder / "dogs" / "odd.png").write_bytes(b"text")
    with pytest.raises(UserError, match=r"odd\.png cannot be read as a picture"):
        images(folder)
    PIL.Image.fromarray(np.zeros((5, 6), np.uint16)).save(folder / "dogs" / "odd.png")
    with pytest.raises(UserError, match=r"odd\.png has pixels of mode I;16"):
        images(folder)


def test_refused_folders(folder, tmp_path):
    with pytest.raises(UserError, match=r"there is no folder .*gone"):
        images(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        images(tmp_path / "empty")
    write(folder / "stray.png", 3)
    with pytest.raises(UserError, match=r"stray\.png, and subfolders"):
        images(folder)


def test_pillow_is_not_asked_for_other_formats(tmp_path):
    """Fails if a file's content chooses the reader: Pillow gives EPS to another program."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "a.png").write_bytes(eps)
    with pytest.raises(UserError, match=r"a\.png cannot be read as a picture"):
        images(tmp_path)
