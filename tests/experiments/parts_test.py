"""Tests of inspect, score and curate: small runs end to end, and errors for bad input."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil

import numpy as np
import PIL.Image
import pytest

import aejax as ae
from aejax.data.pictures.inspection import Reading
from aejax.errors import UserError
from aejax.evaluation import anomaly
from experiments import __main__ as commands
from experiments import curate, inspect
from experiments.shared import parts
from experiments.shared.course import drive
from experiments.shared.place import Place

pytestmark = pytest.mark.usefixtures("coarse")
SIDE = 16
SMALL = inspect.Config(
    seeds=2, steps=2, chunk=2, log_every=1, batch=8, components=3, patch=4, stride=4, features=4,
    remembered=20, atoms=16, k=(2, 4), k_used=2, dictionary_steps=3, width=4, latents=3,
    false_alarms=0.1,
)  # fmt: skip


def part(random, defect=False):
    pixels = random.normal(100, 10, (SIDE, SIDE))
    if defect:
        pixels[4:9, 6:11] += 120
    return PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Makes 60 good pictures to train on, and a test folder with a defect and its masks."""
    root, random = tmp_path_factory.mktemp("parts"), np.random.default_rng(0)
    for name, count in (("train/good", 60), ("test/good", 8), ("test/dent", 8)):
        (root / name).mkdir(parents=True)
        for i in range(count):
            part(random, "dent" in name).save(root / name / f"{i}.png")
    (root / "ground_truth/dent").mkdir(parents=True)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[4:9, 6:11] = 255
    for i in range(8):
        PIL.Image.fromarray(mask).save(root / "ground_truth/dent" / f"{i}_mask.png")
    return root


def main(capsys, *arguments) -> tuple[int, str]:
    try:
        status = commands.main([str(argument) for argument in arguments])
    except SystemExit as exit:
        status = exit.code
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_one_class_of_a_data_set_is_good(digits):
    """Fails if another class gets into train or validation, or test loses its classes."""
    splits = ae.data.images("digits", binarise="none", data_dir=digits)
    train, validation, test = parts.one_class(splits, 3)
    for split, before in zip((train, validation), splits, strict=False):
        assert not split.labels.any()
        assert len(split) == (before.labels == 3).sum()
    assert len(test) == len(splits[2])
    np.testing.assert_array_equal(test.labels == 0, splits[2].labels == 3)
    assert test.classes[0] == "good"
    assert test.classes[1:][int(splits[2].labels[0])] == str(splits[2].labels[0])
    with pytest.raises(UserError, match="has no class 11, which --good names"):
        parts.one_class(splits, 11)


def test_new_pictures_are_read_as_those_of_the_run():
    config = dataclasses.replace(SMALL, dataset="./x", size=24)
    assert parts.reading(config, (24, 24, 3)) == Reading((24, 24), "rgb")
    tiled = dataclasses.replace(SMALL, dataset="./x", tile=16)
    assert parts.reading(tiled, (16, 16, 1)) == Reading(None, "grey")
    assert parts.reading(inspect.Config(), (64, 64, 1)) == Reading((64, 64), "grey", True)
    with pytest.raises(UserError, match="multiples of 4"):
        inspect.build(SMALL, (18, 16, 1))
    with pytest.raises(UserError, match="give numbers from 1 to 16"):
        inspect.build(dataclasses.replace(SMALL, k_used=17), (16, 16, 1))


def test_settings_that_cannot_be_met_are_refused_before_training(digits):
    """Fails if a run is trained and then ends for want of pictures, or ignores a setting."""
    place = Place(data_dir=str(digits))
    for given, words in (
        (
            {"dataset": "digits", "components": 4},
            r"which takes 19: .* --false-alarms 0\.07 or more",
        ),
        ({"dataset": "digits", "false_alarms": 0.1, "components": 200}, "--components 1"),
        ({"dataset": "elpv-mono", "tile": 32}, "does not take --tile: leave them out"),
        ({"dataset": "texture-brick", "held_out": 0.3, "size": 8}, "take --size, --held-out"),
    ):
        with pytest.raises(UserError, match=words):
            parts.load(inspect.Config(**given), place)


@pytest.mark.slow
def test_a_run_of_inspect_scores_new_pictures(folder, tmp_path, capsys):
    """Fails if scores change between the run and the tool, or one bad picture stops the others."""
    run, place = tmp_path / "run", Place(out=str(tmp_path / "run"))
    result = drive(inspect.EXPERIMENT, dataclasses.replace(SMALL, dataset=str(folder)), place)
    assert (run / "report.html").stat().st_size > 0
    assert result["padim"]["auroc"]["mean"] == 1.0
    assert {"pixel_auroc", "aupro_0.3", "false_alarms", "misses"} <= result["padim"].keys()
    assert {"k = 2", "k = 4"} <= result.keys()
    new = tmp_path / "new"
    new.mkdir()
    shutil.copy(folder / "test/good/0.png", new / "a.png")
    shutil.copy(folder / "test/dent/0.png", new / "b.png")
    (new / "c.png").write_bytes((new / "a.png").read_bytes()[:-40])
    PIL.Image.open(new / "b.png").resize((40, 30)).save(new / "d.png")
    status, said = main(
        capsys, "score", run, new, "--json", tmp_path / "s.json", "--maps", tmp_path / "m", "--fail"
    )
    assert status == 1
    assert "c.png" in said
    assert "2 of 3 pictures are anomalous; 1 could not be read" in said
    stored = json.loads((tmp_path / "s.json").read_text())
    assert [row["map"] for row in stored["pictures"]] == ["new-a.png", "new-b.png", "new-d.png"]
    assert [row["anomalous"] for row in stored["pictures"]] == [False, True, True]
    fitted = np.load(run / parts.FITTED)
    assert stored["threshold"] == anomaly.threshold(fitted["padim/held_out"], 0.1)
    assert PIL.Image.open(tmp_path / "m" / "new-d.png").size == (40, 30)
    # Two files are enough for a detector without a net; one with a net also needs its checkpoint.
    small = tmp_path / "small"
    small.mkdir()
    for name in ("config.json", parts.FITTED):
        shutil.copy(run / name, small / name)
    assert main(capsys, "score", small, new / "a.png")[0] == 0
    for name in ("sparse", "sparse-net", "vae-regret", "plain"):
        status, said = main(capsys, "score", run, new / "a.png", "--detector", name)
        assert status == 0, said
    assert main(capsys, "score", run, new / "c.png", "--fail")[0] == 3
    for given, words in (
        (("score", run, new / "a.png", "--detector", "none"), "has no detector 'none'"),
        (("score", run, tmp_path / "nowhere"), "there is no"),
        (("score", run), "nothing to score"),
    ):
        status, said = main(capsys, *given)
        assert status == 2
        assert words in said


@pytest.mark.slow
def test_tiles_of_larger_pictures_are_put_together(folder, tmp_path, capsys):
    config = dataclasses.replace(SMALL, dataset=str(folder), tile=8, overlap=4, seeds=1, patch=2)
    run = tmp_path / "run"
    result = drive(inspect.EXPERIMENT, config, Place(out=str(run)))
    assert result["padim"]["auroc"]["mean"] == 1.0
    PIL.Image.open(folder / "test/dent/0.png").resize((33, 21)).save(tmp_path / "d.png")
    status, said = main(capsys, "score", run, tmp_path / "d.png", "--maps", tmp_path / "m")
    assert status == 0, said
    found = next((tmp_path / "m").iterdir())
    assert PIL.Image.open(found).size == (33, 21)


def test_planted_errors_are_where_the_columns_say(digits):
    """Fails if a changed label keeps its class, or a copy does not name its original."""
    config = curate.Config(dataset="digits", examples=500, wrong_labels=30, duplicates=10)
    train, _, test = curate.data(config, Place(data_dir=str(digits)))
    assert (train.arrays["label"][:500] != train.arrays["true"][:500]).sum() == 30
    assert len(train) == 505
    assert (test.arrays["copy"] >= 0).sum() == 5
    for split in (train, test):
        for i in np.flatnonzero(split.arrays["copy"] >= 0):
            original = train.arrays["image"][split.arrays["copy"][i]].astype(int)
            sums = (
                np.sort(original.reshape(-1))[-9:],
                np.sort(split.arrays["image"][i].reshape(-1))[-9:],
            )
            assert np.all(sums[1] >= sums[0])


@pytest.mark.slow
def test_curate_reads_a_folder_and_writes_a_table(folder, tmp_path, digits):
    """Fails if a file is named on another picture's row."""
    config = curate.Config(
        dataset=str(folder / "test"), steps=2, chunk=2, batch=4, latents=3, atoms=12, k=2, width=8,
        neighbours=3,
    )  # fmt: skip
    run = tmp_path / "run"
    drive(curate.EXPERIMENT, config, Place(out=str(run)))
    assert (run / "report.html").stat().st_size > 0
    rows = list(csv.DictReader((run / "scores.csv").open()))
    assert len(rows) == 16
    for row in rows:
        assert row["label"] in row["file"]
        assert (folder / "test" / row["label"]).is_dir()
    planted = dataclasses.replace(
        config, dataset="digits", examples=300, wrong_labels=20, duplicates=6, batch=32
    )
    place = Place(out=str(tmp_path / "d"), data_dir=str(digits))
    result = drive(curate.EXPERIMENT, planted, place)
    assert {"planted_found", "leaks_found", "others"} <= result["near duplicates"].keys()
    assert 0 < result["raw pixels, neighbours"]["found_in_400"]["mean"] <= 1
