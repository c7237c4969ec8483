"""Tests of data sets of faces: splits share no neighbouring frames; errors; pixel values."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from aejax.data import images
from aejax.data.pictures.faces import FREY, blocks
from aejax.errors import UserError

FRAMES = np.arange(700, dtype=np.uint16)[:, None, None] % np.array([[256, 251, 241, 239]] * 3)


def test_blocks_of_time_leave_no_neighbour_to_train_on():
    """Fails if frames are divided at random, or if blocks have no border between them."""
    parts = blocks(1965)
    assert [len(rows) for rows in parts.values()] == [1310, 222, 333]
    for part in ("validation", "test"):
        gap = np.abs(parts[part][:, None] - parts["train"][None]).min(axis=1)
        assert gap.min() == 11
        assert (np.diff(parts[part]) > 1).sum() == len(parts[part]) // 111 - 1
    everything = np.concatenate(list(parts.values()))
    assert len(np.unique(everything)) == len(everything)
    with pytest.raises(UserError, match="too few"):
        blocks(300)


def test_frey_faces_come_out_of_the_manual_dir(tmp_path):
    """Each frame holds its number. Fails if parts overlap, or if their order is lost."""
    frames = FRAMES.astype(np.uint8)
    np.savez(tmp_path / FREY, images=frames)
    for _ in range(2):  # prepares the data, then loads it
        parts = images("frey_faces", data_dir=tmp_path, manual_dir=tmp_path, binarise="none")
        for split, rows in zip(parts, blocks(len(frames)).values(), strict=True):
            np.testing.assert_array_equal(split.arrays["image"][..., 0], frames[rows])
            assert split.labels is None


def test_what_is_no_file_of_frames_is_refused(tmp_path):
    def prepare():
        images("frey_faces", data_dir=tmp_path / "data", manual_dir=tmp_path)

    with pytest.raises(UserError, match="give by --manual-dir"):
        images("frey_faces", data_dir=tmp_path / "data")
    with pytest.raises(UserError, match="is missing"):
        prepare()
    (tmp_path / FREY).write_bytes(b"PK no zip")
    with pytest.raises(UserError, match="cannot be read"):
        prepare()
    np.savez(tmp_path / FREY, images=FRAMES.astype(np.float32))
    with pytest.raises(UserError, match="u8"):
        prepare()


def test_scikit_images_faces(tmp_path, monkeypatch):
    """The data is the first 100 pictures, on 256 levels. Fails if the others, no faces, stay."""
    pixels = np.random.default_rng(0).integers(0, 766, (200, 25, 25)) / 765
    data = types.ModuleType("skimage.data")
    data.lfw_subset = lambda: pixels  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "skimage", types.ModuleType("skimage"))
    monkeypatch.setitem(sys.modules, "skimage.data", data)
    parts = images("lfw_subset", data_dir=tmp_path, binarise="none")
    assert [len(part) for part in parts] == [80, 10, 10]
    found = {image.tobytes() for part in parts for image in part.arrays["image"]}
    assert found == {np.round(255 * image).astype(np.uint8).tobytes() for image in pixels[:100]}


def test_without_scikit_image_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(UserError, match="pip install scikit-image"):
        images("lfw_subset", data_dir=tmp_path)
