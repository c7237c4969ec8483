"""Tests of data sets by name: prepared completely or not at all, and read by numpy alone."""

import gzip
import io
import json
import os
import signal
import struct
import subprocess
import sys
import zipfile
from importlib.util import find_spec

import numpy as np
import PIL.Image
import pytest
from sklearn.datasets import load_digits

from aejax.data import Batches, images, pictures
from aejax.data.pictures import builders, prepare, tfds_reader
from aejax.errors import UserError
from aejax.training.gathering import gathered

SPLITS = {"train": 30, "t10k": 12}


@pytest.fixture(scope="module")
def data_dir(digits):
    return digits


@pytest.fixture
def manual_dir(tmp_path, monkeypatch):
    """Makes a tiny MNIST in four packed files; each picture shows its number and its label."""
    for name in ("mnist", "fashion_mnist"):
        monkeypatch.setitem(pictures.NAMED, name, builders.Idx(counts=SPLITS))
    folder = tmp_path / "manual"
    folder.mkdir()
    for part, count in SPLITS.items():
        pixels = np.zeros((count, 28, 28), np.uint8)
        pixels[:, 3, 5] = np.arange(count)
        pixels[:, 5, 3] = labels = np.arange(count) % 10
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels.astype(np.uint8))):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            path = folder / f"{part}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(header + array.tobytes()))
    return folder


def python(code, *, blocked=(), **environment):
    """Runs code in a new interpreter in which some packages cannot be imported."""
    block = f"import sys\nfor name in {list(blocked)}: sys.modules[name] = None\n"
    return subprocess.run(
        [sys.executable, "-c", block + code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=120,
    )


class TestDigits:
    def test_are_those_of_scikit_learn(self, data_dir):
        """All 1,797 images are there once, with 17 levels scaled to [0, 1].

        Fails if the scale is 255.
        """
        parts = images("digits", data_dir=data_dir, binarise="none")
        assert [len(part) for part in parts] == [1437, 180, 180]
        found = {
            (image.tobytes(), int(label))
            for part in parts
            for image, label in zip(part.arrays["image"], part.labels, strict=True)
        }
        digits = load_digits()
        wanted = {
            (image.astype(np.uint8).tobytes(), int(label))
            for image, label in zip(digits.images, digits.target, strict=True)
        }
        assert found == wanted
        (batch,) = parts[0].batches(2_000)
        assert float(batch.x.max()) == 1.0
        np.testing.assert_array_equal(batch.x * 16, parts[0].arrays["image"])

    def test_no_example_is_in_two_parts(self, data_dir):
        """Pictures and labels are distinct. Fails if parts are cut from two orders."""
        parts = images("digits", data_dir=data_dir, binarise="none")
        rows = np.concatenate([part.arrays["image"].reshape(len(part), -1) for part in parts])
        assert len(rows) == 1797
        np.testing.assert_array_equal(
            np.sort(rows.sum(1)), np.sort(load_digits().data.sum(1).astype(np.int64))
        )

    def test_are_the_same_each_time(self, data_dir, tmp_path):
        """Prepared twice, the hash of the content is the same. Fails if files are hashed."""
        again = images("digits", data_dir=tmp_path / "made" / "on" / "the" / "way")
        kept = images("digits", data_dir=data_dir)
        assert [a.fingerprint for a in again] == [b.fingerprint for b in kept]
        assert [a.provenance() for a in again] == [b.provenance() for b in kept]
        assert images("digits", data_dir=data_dir, seed=1)[2].fingerprint != kept[2].fingerprint

    def test_environment_variable_names_the_default(self, data_dir, monkeypatch):
        monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
        assert images("digits")[0].name == "digits/train"

    def test_prepared_they_need_numpy_alone(self, data_dir):
        """Fails if reading prepared data imports one of the packages."""
        code = f"""
import aejax.data as data
from aejax.training.gathering import gathered
train, validation, test = data.images("digits", data_dir={str(data_dir)!r})
gathered(data.Batches(train, 32, seeds=2).source(0, 3), 1, 1)
print(len(train), next(test.batches(8)).x.shape)
"""
        blocked = ("tensorflow_datasets", "tensorflow", "grain", "sklearn", "PIL", "array_record")
        result = python(code, blocked=blocked)
        assert result.stdout.strip() == "1437 (8, 8, 8, 1)", result.stderr

    @pytest.mark.parametrize("package", ["tensorflow_datasets", "sklearn.datasets"])
    def test_not_prepared_the_package_is_named(self, package, tmp_path, monkeypatch):
        """Fails if an ImportError is raised, or if a folder is left behind."""
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UserError, match=r"^preparing digits needs .*pip install"):
            images("digits", data_dir=tmp_path)
        assert not list(tmp_path.iterdir())


class TestMnist:
    def test_from_manual_dir(self, manual_dir, tmp_path):
        """Pictures and labels stay together, and the stock reader reads the result."""
        data_dir = tmp_path / "data"
        for _ in range(2):  # prepares the data, then loads it
            parts = images("mnist", data_dir=data_dir, manual_dir=manual_dir, binarise="none")
            assert [len(part) for part in parts] == [24, 6, 12]
            for part in parts:
                pixels = part.arrays["image"]
                np.testing.assert_array_equal(pixels[:, 5, 3, 0], part.labels)
                np.testing.assert_array_equal(pixels[:, 3, 5, 0] % 10, part.labels)
                assert "not upstream's, content hash recorded" in part.origin
        numbers = np.concatenate([part.arrays["image"][:, 3, 5, 0] for part in parts[:2]])
        np.testing.assert_array_equal(np.sort(numbers), np.arange(30))
        import tensorflow_datasets as tfds

        source = tfds.data_source("mnist", data_dir=data_dir, download=False)
        assert {name: len(part) for name, part in source.items()} == {"train": 30, "test": 12}
        assert "tensorflow" not in sys.modules

    def test_class_names(self, manual_dir, tmp_path):
        train, *_ = images("fashion_mnist", data_dir=tmp_path / "data", manual_dir=manual_dir)
        assert train.classes[9] == "Ankle boot"

    def test_validation_share(self, manual_dir, tmp_path):
        options = {"data_dir": tmp_path / "data", "manual_dir": manual_dir}
        parts = images("mnist", validation=0.5, **options)
        assert [len(part) for part in parts] == [15, 15, 12]
        with pytest.raises(UserError, match="mnist has 30 examples, too few"):
            images("mnist", validation=30, **options)

    @pytest.mark.parametrize("name", ["t10k-labels-idx1-ubyte.gz", "train-images-idx3-ubyte.gz"])
    def test_missing_or_damaged_file_is_named(self, manual_dir, tmp_path, name):
        """Nothing is left in the data folder.

        Fails if records are written before all files are read.
        """
        data_dir, path = tmp_path / "data", manual_dir / name
        whole = path.read_bytes()
        for damage in (whole[:-9], b"", gzip.compress(gzip.decompress(whole)[:-1])):
            path.write_bytes(damage)
            with pytest.raises(UserError, match=name):
                images("mnist", data_dir=data_dir, manual_dir=manual_dir)
        path.unlink()
        with pytest.raises(UserError, match=f"{name} is missing"):
            images("mnist", data_dir=data_dir, manual_dir=manual_dir)
        assert not list(data_dir.iterdir())

    def test_label_out_of_range(self, manual_dir, tmp_path):
        path = manual_dir / "train-labels-idx1-ubyte.gz"
        content = bytearray(gzip.decompress(path.read_bytes()))
        content[-1] = 10
        path.write_bytes(gzip.compress(bytes(content)))
        with pytest.raises(UserError, match="has a label 10"):
            images("mnist", data_dir=tmp_path / "data", manual_dir=manual_dir)


class TestStock:
    def test_without_tensorflow(self, tmp_path):
        """A stock builder reads zip files. Fails if the unpacking of tfds is used."""
        for file, count in (("horse-or-human.zip", 5), ("validation-horse-or-human.zip", 2)):
            with zipfile.ZipFile(tmp_path / file, "w") as archive:
                for i in range(count):
                    picture = io.BytesIO()
                    PIL.Image.new("RGB", (300, 300), (i, 1, 2)).save(picture, "PNG")
                    archive.writestr(f"horses/horse-{i}.png", picture.getvalue())
        parts = images(
            "horses_or_humans", data_dir=tmp_path / "data", manual_dir=tmp_path, validation=1
        )
        assert [len(part) for part in parts] == [4, 1, 2]
        assert parts[0].event == (300, 300, 3)

    @pytest.mark.skipif(find_spec("tensorflow") is not None, reason="TensorFlow is installed")
    def test_what_to_install_is_named(self, tmp_path):
        """The builder of cifar10 needs TensorFlow. Fails if the ImportError is raised."""
        with zipfile.ZipFile(tmp_path / "cifar-10-binary.tar.gz", "w") as archive:
            archive.writestr("cifar-10-batches-bin/batches.meta.txt", "\n".join("abcdefghij"))
        with pytest.raises(UserError, match="needs the package tensorflow: pip install tensorflow"):
            images("cifar10", data_dir=tmp_path / "data", manual_dir=tmp_path)
        assert not list((tmp_path / "data").iterdir())

    def test_damage_is_one_sentence(self, tmp_path):
        """A stock builder gets a wrong file. Fails if the builder's own error is raised."""
        with zipfile.ZipFile(tmp_path / "cifar-10-binary.tar.gz", "w") as archive:
            archive.writestr("cifar-10-batches-bin/batches.meta.txt", "a")
        with pytest.raises(UserError, match=r"cifar10 could not be prepared .*Got 1 names"):
            images("cifar10", data_dir=tmp_path / "data", manual_dir=tmp_path)

    def test_unknown_name(self, tmp_path):
        """The error lists the known names in one sentence."""
        with pytest.raises(UserError, match="unknown data set 'mnits': give one of digits, mnist"):
            images("mnits", data_dir=tmp_path)

    def test_no_pictures(self, tmp_path):
        with pytest.raises(UserError, match="ag_news_subset is not a data set of pictures"):
            images("ag_news_subset", data_dir=tmp_path, manual_dir=tmp_path)


class TestWholeOrNotAtAll:
    def test_killed_midway(self, tmp_path):
        """It is killed just before the rename.

        The next start finishes and leaves nothing behind.
        """
        code = f"""
import os, signal
import aejax.data as data
from aejax.data.pictures import prepare
prepare.write_prepared = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
data.images("digits", data_dir={str(tmp_path)!r})
"""
        assert python(code).returncode == -signal.SIGKILL
        assert not (tmp_path / "digits").exists()
        assert len(images("digits", data_dir=tmp_path)[0]) == 1437
        assert [path.name for path in tmp_path.iterdir()] == ["digits"]

    def test_failed_midway(self, tmp_path, monkeypatch):
        """Fails if records are written directly into the final folder."""

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(prepare, "write_prepared", full)
        with pytest.raises(UserError, match=r"cannot be written .*No space left.*--data-dir"):
            images("digits", data_dir=tmp_path)
        assert not list(tmp_path.iterdir())

    def test_unwritable(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match=r"file/data cannot be written .*--data-dir"):
            images("digits", data_dir=tmp_path / "file" / "data")

    def test_damaged_file_is_named(self, data_dir, tmp_path):
        """One byte is changed at each of many places. Fails if the hash is not compared."""
        whole = (data_dir / "digits" / "1.0.0" / "aejax.npz").read_bytes()
        path = tmp_path / "digits" / "1.0.0" / "aejax.npz"
        path.parent.mkdir(parents=True)
        path.write_bytes(whole)
        images("digits", data_dir=tmp_path)
        for place in [len(whole) * i // 7 + 200 for i in range(6)]:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(UserError, match=r"aejax\.npz is damaged"):
                images("digits", data_dir=tmp_path)
        path.write_bytes(whole[:-100])
        with pytest.raises(UserError, match=r"aejax\.npz is damaged"):
            images("digits", data_dir=tmp_path)

    def test_stale_hash(self, data_dir, tmp_path):
        """Changed values with matching zip checksums are found by the sha256 alone."""
        with np.load(data_dir / "digits" / "1.0.0" / "aejax.npz") as file:
            held = dict(file)
        held["train/image"][0, 0, 0, 0] ^= 1
        path = tmp_path / "digits" / "1.0.0" / "aejax.npz"
        path.parent.mkdir(parents=True)
        np.savez(path, allow_pickle=False, **held)
        with pytest.raises(UserError, match="sha256 differs"):
            images("digits", data_dir=tmp_path)


def test_prepared_by_tfds_alone(data_dir, tmp_path, manual_dir):
    """Without our .npz the records are read, and the .npz is written."""
    first = images("mnist", data_dir=tmp_path / "data", manual_dir=manual_dir)
    (kept,) = (tmp_path / "data").glob("mnist/*/aejax.npz")
    kept.unlink()
    again = images("mnist", data_dir=tmp_path / "data", manual_dir=tmp_path / "gone")
    assert [a.fingerprint for a in again] == [b.fingerprint for b in first]
    assert kept.exists()


@pytest.mark.parametrize("binarise", ["none", "dynamic"])
def test_what_does_not_fit_memory(data_dir, tmp_path, monkeypatch, binarise):
    """It has the examples and batches of data in memory.

    Fails if rows are counted over all splits.
    """
    monkeypatch.setattr(tfds_reader, "MEMORY_LIMIT", 0)
    small = images("digits", data_dir=data_dir, binarise=binarise)
    for _ in range(2):  # prepares the data, then opens it again
        large = images("digits", data_dir=tmp_path, binarise=binarise)
        for a, b in zip(small, large, strict=True):
            assert len(a) == len(b)
            assert a.event == b.event
            np.testing.assert_array_equal(a.labels, b.labels)
            if binarise == "none" or a is small[0]:
                rows = np.array([[7, 3], [0, 3]])
                np.testing.assert_array_equal(b.rows(rows)["image"], a.arrays["image"][rows])
        ours, theirs = Batches(small[0], 32, seeds=2), Batches(large[0], 32, seeds=2)
        for t in (0, 2):
            source = theirs.source(t, 2)
            assert source.rows is None
            np.testing.assert_array_equal(gathered(source, 1, t + 1).x, ours[t + 1].x)
    # Static binarisation does not depend on how the data is read.
    test = large[2]
    assert test.fingerprint != large[1].fingerprint
    once = np.concatenate([batch.x for batch in test.batches(70)])
    np.testing.assert_array_equal(once, np.concatenate([b.x for b in test.batches(33)]))
    if binarise == "dynamic":
        assert set(np.unique(once)) == {0.0, 1.0}
        # The mean is within five standard deviations of the mean grey value.
        grey = images("digits", data_dir=data_dir, binarise="none")[2].arrays["image"] / 16
        deviation = np.sqrt((grey * (1 - grey)).sum()) / grey.size
        assert abs(once.mean() - grey.mean()) < 5 * deviation


def test_prepared_holds_no_objects(data_dir):
    """Reading runs no code: the .npz loads without pickle, and its description is JSON."""
    with np.load(data_dir / "digits" / "1.0.0" / "aejax.npz", allow_pickle=False) as file:
        about = json.loads(str(file["about"]))
    assert about["scale"] == 16


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("huggingface:mnist", "cannot be a name"),
        ("a'b\nc", "cannot be a name"),
        ("", "cannot be a name"),
        ("mnist", "does not hold the data set 'mnist', which is not prepared"),
        ("/etc", "are a path, which is not followed"),
        ("../elsewhere", "are a path, which is not followed"),
        ("~/pictures", "are a path, which is not followed"),
    ],
)
def test_a_name_of_somebody_else_is_not_followed(tmp_path, name, says):
    """Fails if a data set is prepared or downloaded, or a path is read, for a run's config.json."""
    with pytest.raises(UserError, match=says) as caught:
        images(name, data_dir=tmp_path / "data", prepared_only=True)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_prepared_may_be_read_for_anybody(data_dir):
    assert images("digits", data_dir=data_dir, prepared_only=True)[0].event == (8, 8, 1)
