"""Tests that upstream files are found and verified, even if gzipped again, and damage is named."""

import gzip
import hashlib
import io
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from aejax.data.pictures.archives import Archives
from aejax.data.pictures.upstream import fetch, is_upstream, read_idx
from aejax.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 4, 3)).astype(np.uint8)


def idx(array, magic=None):
    """Writes the idx format independently of the reader."""
    magic = struct.pack(">HBB", 0, 8, array.ndim) if magic is None else magic
    return magic + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def packed(content, name="", time=0):
    """Makes a gzip file with the given name and time in its header."""
    file = io.BytesIO()
    with gzip.GzipFile(name, "wb", fileobj=file, mtime=time) as stream:
        stream.write(content)
    return file.getvalue()


class TestIdx:
    def test_reads_packed_and_unpacked(self, tmp_path):
        """Fails if the length of the header is wrong."""
        for name, content in [("a.gz", packed(idx(PIXELS))), ("a", idx(PIXELS))]:
            (tmp_path / name).write_bytes(content)
            np.testing.assert_array_equal(read_idx(tmp_path / name, PIXELS.shape), PIXELS)

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (packed(idx(PIXELS))[:-20], "damaged"),
            (packed(idx(PIXELS))[:40] + b"\xff\xff" + packed(idx(PIXELS))[42:], "damaged"),
            (packed(idx(PIXELS))[:-8] + b"\0" * 8, "damaged"),
            (b"<html>not found</html>", "damaged"),
            (packed(idx(PIXELS, magic=b"\0\0\x0d\3")), "starts with 00000d03 instead of 00000803"),
            (packed(idx(PIXELS[0])), "starts with 00000802"),
            (packed(idx(PIXELS[:6])), r"an array of shape \(6, 4, 3\) instead of \(7, 4, 3\)"),
            (packed(idx(PIXELS)[:-1]), "83 bytes of pixels or labels instead of 84"),
            (packed(b""), "not an idx file"),
        ],
    )
    def test_damage_is_named(self, tmp_path, content, says):
        """Fails if one of the checks of read_idx is left out."""
        path = tmp_path / "train-images-idx3-ubyte.gz"
        path.write_bytes(content)
        with pytest.raises(UserError, match=says) as raised:
            read_idx(path, PIXELS.shape)
        assert str(path) in str(raised.value)


class TestUpstream:
    def test_known_again_after_gzip_n(self, tmp_path):
        """Name and time are put back. Fails if one is not, or if the time is big-endian."""
        name = "train-images-idx3-ubyte"
        original = packed(idx(PIXELS), name, 1504176606)
        sha256 = hashlib.sha256(original).hexdigest()
        path = tmp_path / f"{name}.gz"
        path.write_bytes(packed(idx(PIXELS), "", 1588202221))
        assert path.read_bytes() != original
        assert is_upstream(path, sha256, 1504176606)
        assert not is_upstream(path, sha256, 1504176627)
        assert not is_upstream(path, sha256, None)
        path.write_bytes(original)
        assert is_upstream(path, sha256, None)
        path.write_bytes(packed(idx(PIXELS + 1), "", 0))
        assert not is_upstream(path, sha256, 1504176606)

    def test_download(self, tmp_path):
        """The url is that of a file. Fails if the sha256 is not compared."""
        (tmp_path / "there").write_bytes(b"content")
        url = (tmp_path / "there").as_uri()
        sha256 = hashlib.sha256(b"content").hexdigest()
        path = fetch(url, "here", sha256, None, tmp_path / "downloads")
        assert path == tmp_path / "downloads" / "here"
        assert path.read_bytes() == b"content"
        with pytest.raises(UserError, match="does not have the known sha256"):
            fetch(url, "here", "0" * 64, None, tmp_path)
        with pytest.raises(UserError, match=r"could not be downloaded.*--manual-dir"):
            fetch((tmp_path / "gone").as_uri(), "gone", None, None, tmp_path)

    def test_manual_dir_downloads_nothing(self, tmp_path):
        """The url works, but is not used. Fails if a missing file is downloaded instead."""
        (tmp_path / "there.gz").write_bytes(b"content")
        manual = tmp_path / "manual"
        manual.mkdir()
        url = (tmp_path / "there.gz").as_uri()
        with pytest.raises(UserError, match=r"manual/there.gz is missing") as raised:
            fetch(url, "there.gz", None, manual, tmp_path / "downloads")
        assert url in str(raised.value)
        (manual / "there").write_bytes(b"unpacked")
        assert fetch(url, "there.gz", None, manual, tmp_path) == manual / "there"
        assert not (tmp_path / "downloads").exists()


class TestArchives:
    @pytest.fixture
    def archives(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("one/1.txt", "first")
            archive.writestr("two/2.txt", "second")
        with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as archive:
            entry = tarfile.TarInfo("one/1.txt")
            entry.size = 5
            archive.addfile(entry, io.BytesIO(b"first"))
        (tmp_path / "c.zip").write_bytes(b"PK")
        return Archives(tmp_path, tmp_path / "work", {})

    def test_reads_zip_and_tar(self, archives):
        """It works for any nesting of lists and mappings of urls."""
        paths = archives.download({"x": ["http://h/a.zip"], "y": "http://h/b.tar.gz"})
        read = {name: file.read() for name, file in archives.iter_archive(paths["x"][0])}
        assert read == {"one/1.txt": b"first", "two/2.txt": b"second"}
        assert [name for name, _ in archives.iter_archive(paths["y"])] == ["one/1.txt"]
        folder = archives.extract(paths["x"][0])
        assert (folder / "two" / "2.txt").read_text() == "second"
        assert not archives.verified({})

    def test_damage_is_named(self, archives):
        path = archives.download("http://h/c.zip")
        with pytest.raises(UserError, match=r"c\.zip is damaged"):
            archives.extract(path)

    def test_nothing_leaves_the_folder(self, archives, tmp_path):
        """Fails if paths are not resolved."""
        with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
            archive.writestr("../../out.txt", "evil")
        with pytest.raises(UserError, match="outside the folder"):
            archives.extract(tmp_path / "d.zip")
        assert not (tmp_path / "out.txt").exists()
