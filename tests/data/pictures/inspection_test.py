"""Tests of pictures for inspection: the layout of MVTec AD, tiles, solar cells and textures."""

import io
import shutil
import zipfile

import numpy as np
import PIL.Image
import pytest

from aejax.data.pictures import defects, textures
from aejax.data.pictures.inspection import inspection, tiles_of
from aejax.data.pictures.solar_cells import solar_cells
from aejax.data.pictures.tiles import cut, merged
from aejax.errors import UserError


def write(path, level, size=(12, 10), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size[::-1] if mode == "L" else (*size[::-1], 3)
    PIL.Image.fromarray(np.full(shape, level, np.uint8), mode).save(path)


@pytest.fixture
def folder(tmp_path):
    """Makes ten good pictures of 12 x 10 pixels, two good test pictures and two defects of two."""
    for i in range(10):
        write(tmp_path / "train/good" / f"{i}.png", i)
    for i in range(2):
        write(tmp_path / "test/good" / f"{i}.png", 100 + i)
        for kind in ("bent", "cut"):
            write(tmp_path / "test" / kind / f"{i}.png", 200 + i)
            mask = np.zeros((10, 12), np.uint8)
            mask[i, 3] = 255
            path = tmp_path / "ground_truth" / kind / f"{i}_mask.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(mask).save(path)
    return tmp_path


def test_folder_in_the_layout_of_mvtec(folder):
    """Fails if a mask belongs to another picture, or a defect gets into train or validation."""
    train, validation, test = inspection(folder)
    assert (len(train), len(validation), len(test)) == (8, 2, 6)
    assert test.classes == ("good", "bent", "cut")
    assert test.event == (10, 12, 1)
    levels = np.concatenate([part.arrays["image"][:, 0, 0, 0] for part in (train, validation)])
    assert sorted(levels) == list(range(10))
    assert test.labels is not None
    assert test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert test.arrays["image"][:, 0, 0, 0].tolist() == [100, 101, 200, 201, 200, 201]
    marked = np.argwhere(test.arrays["defect"]).tolist()
    assert marked == [[2, 0, 3], [3, 1, 3], [4, 0, 3], [5, 1, 3]]
    again = inspection(folder, size=20, seed=0)[2]
    assert again.event == (20, 20, 1)
    assert again.arrays["defect"][3].sum() >= 2


def test_good_pictures_alone_give_all_three_splits(folder):
    """Fails if a folder without test, or without train, is refused or loses pictures."""
    (folder / "only").mkdir()
    (folder / "only/train").symlink_to(folder / "train")
    for root in (folder / "only", folder / "train/good"):
        parts = inspection(root)
        assert [len(part) for part in parts] == [6, 2, 2]
        assert parts[2].classes == ("good",)
        assert "defect" not in parts[2].arrays
        levels = [level for part in parts for level in part.arrays["image"][:, 0, 0, 0]]
        assert sorted(levels) == list(range(10))


def test_exposure_is_evened_out(folder):
    train = inspection(folder, even=True)[0]
    assert {*train.arrays["image"][train.arrays["image"] > 0].tolist()} == {128}


def test_tiles_cover_each_picture_and_come_together_again(folder):
    """Fails if a row or column is left out, or if overlapping tiles are summed."""
    random = np.random.default_rng(0)
    pictures = [random.normal(size=size) for size in ((10, 12), (7, 5), (5, 5))]
    tiles = cut(pictures, (5, 5), overlap=2)
    assert tiles.values.shape[1:] == (5, 5)
    for picture, again in zip(pictures, merged(tiles.values, tiles), strict=True):
        np.testing.assert_allclose(picture, again, atol=1e-6)
    tops = np.unique(tiles.top[tiles.picture == 0])
    assert np.diff(tops).max() <= 3
    test = inspection(folder, tile=6, overlap=2)[2]
    assert test.event == (6, 6, 1)
    whole = merged(test.arrays["defect"].astype(np.float32), tiles_of(test))
    assert [mask.shape for mask in whole] == [(10, 12)] * 6
    assert [(mask > 0).sum() for mask in whole] == [0, 0, 1, 1, 1, 1]


def test_refusals_of_folders(folder):
    """Fails if wrong input gets a traceback, or its message does not name the file."""
    with pytest.raises(UserError, match="there is no folder"):
        inspection(folder / "none")
    with pytest.raises(UserError, match="tiles of 64x64 pixels do not fit"):
        inspection(folder, tile=64)
    with pytest.raises(UserError, match="overlap of tiles is 6"):
        inspection(folder, tile=6, overlap=6)
    with pytest.raises(UserError, match="leave none to train on"):
        inspection(folder, held_out=0.01)
    path = folder / "test/cut/1.png"
    write(path, 3, mode="RGB")
    with pytest.raises(UserError, match=r"1\.png is in colour, but .* is grey: choose channels"):
        inspection(folder)
    assert inspection(folder, channels="rgb")[0].event == (10, 12, 3)
    write(path, 3, size=(8, 8))
    with pytest.raises(UserError, match=r"1\.png has 8x8 pixels, but .* has 12x10: give a size"):
        inspection(folder)
    with pytest.raises(UserError, match=r"1_mask\.png has 12x10 pixels, but its picture has 8x8"):
        inspection(folder, size=8)
    write(path, 3)
    mask = folder / "ground_truth/cut/1_mask.png"
    kept = mask.read_bytes()
    mask.unlink()
    with pytest.raises(UserError, match=r"the mask of .*1\.png is missing: put it at .*1_mask"):
        inspection(folder)
    mask.write_bytes(kept)
    noise = np.random.default_rng(0).integers(0, 256, (10, 12), np.uint8)
    PIL.Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(UserError, match=r"cut/1\.png (is damaged|cannot be read)"):
        inspection(folder)
    path.unlink()
    (folder / "train/bent").mkdir()
    with pytest.raises(UserError, match="train holds bent, but detectors learn from good parts"):
        inspection(folder)
    (folder / "train/bent").rmdir()
    (folder / "train").rename(folder.parent / "moved")
    with pytest.raises(
        UserError, match="holds no pictures and no folder train, so it is not known"
    ):
        inspection(folder)  # the pictures of test and ground_truth are not good ones
    shutil.copytree(folder.parent / "moved/good", folder / "fine")
    write(folder / "x.png", 3)
    with pytest.raises(UserError, match="holds the folders fine and no folder train"):
        inspection(folder)
    (folder / "x.png").unlink()
    (folder.parent / "moved").rename(folder / "train")
    for picture in (folder / "train/good").iterdir():
        picture.unlink()
    with pytest.raises(UserError, match="train/good holds no pictures of good parts"):
        inspection(folder)


def solar_wheel(folder, count=20):
    """Writes a wheel like that of elpv-dataset; every fourth cell is defective or uncertain."""
    content = io.BytesIO()
    rows = []
    with zipfile.ZipFile(content, "w") as archive:
        for i in range(count):
            picture = io.BytesIO()
            PIL.Image.fromarray(np.full((30, 30), 10 + i, np.uint8)).save(picture, "PNG")
            archive.writestr(f"elpv_dataset/data/images/{i}.png", picture.getvalue())
            probability = {0: 1.0, 2: 1 / 3}.get(i % 4, 0.0)
            rows.append(f"images/{i}.png  {probability:.16g}  {'mono' if i < 16 else 'poly'}")
        archive.writestr("elpv_dataset/data/labels.csv", "\n".join(rows))
    (folder / "elpv_dataset-1.0.0.post1-py3-none-any.whl").write_bytes(content.getvalue())


def test_solar_cells_are_read_from_the_wheel_or_its_folder(tmp_path):
    """Fails if uncertain cells, or those of the other kind, are kept."""
    solar_wheel(tmp_path)
    parts = solar_cells("mono", tmp_path, size=16, held_out=0.25)
    assert [len(part) for part in parts] == [4, 2, 6]  # 8 good ones, 4 defective ones
    assert parts[2].labels.tolist() == [0, 0, 1, 1, 1, 1]
    assert parts[0].event == (16, 16, 1)
    assert parts[0].arrays["image"].mean() == pytest.approx(128, abs=5)
    assert parts[0].origin == "from --manual-dir, not the known content"
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        archive.extractall(tmp_path / "folder")
    again = solar_cells("mono", tmp_path / "folder", size=16, held_out=0.25)
    assert again[2].fingerprint == parts[2].fingerprint
    (tmp_path / "folder/elpv_dataset/data/images/0.png").unlink()
    with pytest.raises(UserError, match=r"0\.png is missing .*pip download"):
        solar_cells("mono", tmp_path / "folder")
    with pytest.raises(UserError, match=r"labels\.csv is missing"):
        solar_cells("poly", tmp_path / "nowhere")


@pytest.mark.parametrize("channels", [1, 3])
def test_defects_change_the_picture_within_their_mask_only(channels):
    """Fails if a mask is empty, too large, or leaves changed pixels out."""
    picture = np.random.default_rng(0).normal(120, 30, (64, 64, channels))
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    for kind in defects.DEFECTS:
        random = np.random.default_rng(1)
        painted, mask = defects.paint(kind, picture, random)
        assert painted.dtype == np.uint8
        assert 10 < mask.sum() < 0.3 * mask.size, kind
        change = np.abs(painted.astype(int) - picture).mean(axis=-1)
        assert change[mask].mean() > 5 * change[~mask].mean(), kind
        same, _ = defects.paint(kind, picture, np.random.default_rng(1))
        np.testing.assert_array_equal(painted, same)
    with pytest.raises(UserError, match="there is no defect 'dent'"):
        defects.paint("dent", picture, np.random.default_rng(0))


def test_texture_crops_of_the_splits_have_no_pixel_in_common(monkeypatch):
    """Fails if a crop crosses into a block of another split, or is calm; pixels name their block.

    The first column of blocks, 0, is calm, and the others are striped.
    """
    rows, columns = np.arange(400) // 100, np.arange(1280) // 160
    block = 8 * rows[:, None] + columns
    stripes = np.where((np.arange(1280) % 2 == 1) & (columns > 0), 200, 0)
    photograph = np.stack([block, block, stripes + 0 * block], axis=-1).astype(np.uint8)
    monkeypatch.setattr(textures, "_photograph", lambda name: photograph)
    monkeypatch.setattr(textures, "COUNTS", {"train": 40, "validation": 9, "good": 20, "defect": 2})
    train, validation, test = textures.textures("china")
    of = np.array([*"".join(textures.BLOCKS)])
    for split, pictures in (
        ("a", train.arrays["image"]),
        ("b", validation.arrays["image"]),
        ("c", test.arrays["image"][:20]),
    ):
        found = np.unique(pictures[..., 0])
        assert {*of[found]} == {split}
        assert len(found) > 1
        assert not (pictures[..., 0] % 8 == 0).all(axis=(1, 2)).any()
    assert test.labels is not None
    assert np.bincount(test.labels).tolist() == [20, *[2] * 6]
    assert test.arrays["defect"].any(axis=(1, 2)).tolist() == [False] * 20 + [True] * 12
    with pytest.raises(UserError, match="there is no texture 'wool'"):
        textures.textures("wool")
