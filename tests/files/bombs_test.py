"""Tests that small files cannot fill the memory, make the reader wait or run code."""

import gzip
import io
import json
import os
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest

from aejax import interop
from aejax.data import npz
from aejax.data.pictures import faces, folder, store, upstream
from aejax.data.sound.recordings import read_recordings
from aejax.data.text.source import read_text
from aejax.errors import UserError
from aejax.files import members, read_json, read_npy, read_npz
from aejax.interop.archive import read_torch
from tests.harm import little, needs_linux
from tests.interop import cases

GIB = 2**30


def zipped(path, name, content, declared=None, way=zipfile.ZIP_DEFLATED):
    """Writes a compressed zip of one file, whose declared size may be another than its own."""
    with zipfile.ZipFile(path, "w", way) as archive:
        archive.writestr(name, content)
    if declared is not None:
        whole = bytearray(path.read_bytes())
        for start in (whole.index(b"PK\1\2") + 24, whole.index(b"PK\3\4") + 22):
            whole[start : start + 4] = struct.pack("<I", declared)
        path.write_bytes(bytes(whole))
    return path


def npy(shape, descr="<f4"):
    """Returns the header of an .npy file."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    padded = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(padded)) + padded


def one_storage(place, overlap=False):
    """400 tensors in a file of 4 MB: in one storage, or in 400 storages at one place."""
    array, names, storages = np.zeros(2**20, np.float32), [], []
    for i in range(400):
        storages = [array] * (i if overlap else 0)
        names.append(cases._pickled(f"t{i}", []) + cases._tensor(array, storages))
    program = b"\x80\x02ccollections\nOrderedDict\n)R(" + b"".join(names) + b"u."
    path = place / "ae.pt"
    cases.write_archive(path, program, [array])
    if overlap:
        with zipfile.ZipFile(path, "a") as archive:
            first = archive.getinfo("archive/data/0")
            for i in range(1, 400):
                entry = zipfile.ZipInfo(f"archive/data/{i}")
                for field in ("header_offset", "compress_size", "file_size", "CRC"):
                    setattr(entry, field, getattr(first, field))
                archive.filelist.append(entry)
            archive._didModify = True
    return path


def with_order(place):
    path = zipped(place / "ae.pt", "a/data.pkl", b"N.")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/byteorder", bytes(2**26))
    return path


def png(place, side):
    """A picture of equal pixels, each of which takes a thousandth of a byte."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(1 + side)) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    content = chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    written(place / "a.png", b"\x89PNG\r\n\x1a\n" + content)
    return place


def written(path, content):
    path.write_bytes(content)
    return path


def waits(path):
    os.mkfifo(path)
    return path


def sparse(path):
    """A file of 8 GiB that takes no room on the disk."""
    with path.open("wb") as file:
        file.truncate(8 * GIB)


def extended(path, content):
    """A file with 2 GiB of zeros at its end that take no room on the disk."""
    written(path, content)
    os.truncate(path, 2 * GIB)
    return path


def saelens(place, make):
    """A folder of SAELens whose cfg.json is made by `make`."""
    cases.write_saelens(place, {"W_enc": np.zeros((2, 3), np.float32)})
    (place / "cfg.json").unlink()
    make(place / "cfg.json")
    return place


def described(place, **changes):
    """A prepared data set with an edited description, which its sha256 does not cover."""
    path, pixels = place / "aejax.npz", np.zeros((2, 3, 3, 1), np.uint8)
    store.write_prepared(path, store.Prepared("d", {"train": {"image": pixels}}, 255.0, (), "o"))
    arrays = read_npz(path)
    about = json.loads(str(arrays.pop("about"))) | changes
    np.savez(path, about=np.array(json.dumps(about)), **arrays)
    return path


def sounds(place):
    about = {"name": "n", "names": {}, "rate": 8000, "origin": "o", "facts": {}}
    arrays = {"sound": np.zeros(9, np.int16), "length": np.array([4, 4], np.int32)}
    npz.save(place / "aejax.npz", arrays, about)
    return place / "aejax.npz"


def checksum(header):
    """Returns what a header of a tar archive holds as the sum of its bytes."""
    return b"%06o\0 " % tarfile.calc_chksums(header)[0]


def tarred(path, *headers):
    """Writes a compressed tar archive of headers only, each (name, type, declared size)."""
    blocks = {}
    for name, kind, size in set(headers):
        entry = tarfile.TarInfo(name)
        entry.type, entry.size = kind, max(size, 0)
        block = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
        if size < 0:  # base 256, as GNU tar writes what octal digits cannot hold
            block[124:136] = b"\xff" * 4 + size.to_bytes(8, "big", signed=True)
            block[148:156] = checksum(bytes(block))
        blocks[name, kind, size] = bytes(block)
    content = b"".join(map(blocks.get, headers)) + bytes(1024)
    path.write_bytes(gzip.compress(content, 1))
    return path


def in_archive(path):
    return dict(members(path))


def any_json(path):
    return read_json(path, {})


# name -> (a function of an empty folder that makes the file, its reader, what the error says)
HOSTILE = {
    "storages at one place": (
        lambda place: one_storage(place, overlap=True),
        read_torch,
        "its storages have more bytes than the file|Overlapped entries",
    ),
    "a pickle of many stops": (
        lambda place: zipped(place / "a.pt", "a/data.pkl", b"N" * 20_000_000 + b"."),
        read_torch,
        "has 20,000,001 bytes instead of 1,048,576 at most",
    ),
    "a pickle of many tuples": (
        lambda place: zipped(place / "a.pt", "a/data.pkl", b")" * 3_000_000 + b"."),
        read_torch,
        "has 3,000,001 bytes instead of 1,048,576 at most",
    ),
    "a byte order": (with_order, read_torch, "has 67,108,864 bytes instead of 16 at most"),
    "an npz member": (
        lambda place: zipped(
            place / "a.npz", "W.npy", npy((2**28,)) + bytes(2**22), declared=3 * GIB
        ),
        read_npz,
        "bytes hold 3,221,225,472 bytes of arrays",
    ),
    "an npz array beyond its file": (
        lambda place: zipped(place / "a.npz", "W.npy", npy((2**40,)) + bytes(64)),
        read_npz,
        "but has 64 bytes of it",
    ),
    "an npz header with a further entry": (
        lambda place: zipped(place / "a.npz", "W.npy", npy("(4,), 'shape': (2,)") + bytes(16)),
        read_npz,
        "it has the header",
    ),
    "an npz array of negative size": (
        lambda place: zipped(place / "a.npz", "W.npy", npy((-4, -4)) + bytes(64)),
        read_npz,
        "it has the header",
    ),
    "an npz of objects": (
        lambda place: zipped(place / "a.npz", "a.npy", npy((2,), "|O") + bytes(16)),
        read_npz,
        "an array of object",
    ),
    "an npy header": (
        lambda place: written(place / "a.npy", b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(99)),
        read_npy,
        "a header of 4,294,967,295 bytes",
    ),
    "faces": (
        lambda place: zipped(
            place / "a.npz", "images.npy", npy((2**28,)) + bytes(2**20), declared=3 * GIB
        ),
        faces._frames,
        "cannot be read .*: give an .npz with `images`",
    ),
    "a config without an end": (
        lambda place: saelens(place, lambda path: path.symlink_to("/dev/zero")),
        interop.load,
        "not a regular file",
    ),
    "a sparse config": (
        lambda place: saelens(place, sparse),
        interop.load,
        "has 8,589,934,592 bytes, but at most 16,777,216 are read",
    ),
    "a config of many lists": (
        lambda place: saelens(place, lambda path: path.write_bytes(b"[" + b"[]," * 33_000_000)),
        interop.load,
        "bytes, but at most 16,777,216 are read",
    ),
    "a config that waits": (
        lambda place: saelens(place, waits),
        interop.load,
        "not a regular file",
    ),
    "nested JSON": (
        lambda place: written(place / "a.json", b'{"a": ' + b"[" * 101 + b"]" * 101 + b"}"),
        any_json,
        "nested deeper than 100 levels",
    ),
    "a large picture": (
        lambda place: png(place, 5_800),
        folder.read_folder,
        "has 5800x5800 pixels, but pictures of at most 33,554,432",
    ),
    "a picture with zeros behind it": (
        lambda place: extended(place / "a.webp", b"RIFF\0\0\0\0WEBPVP8 ").parent,
        folder.read_folder,
        "it has 2,147,483,648 bytes, but 268,435,456 at most",
    ),
    "a picture that waits": (
        lambda place: waits(place / "a.png").parent,
        folder.read_folder,
        "not a regular file",
    ),
    "an idx file": (
        lambda place: written(
            place / "a.gz", gzip.compress(struct.pack(">HBBI", 0, 8, 1, 7) + bytes(2**26), 1)
        ),
        lambda path: upstream.read_idx(path, (7,)),
        "holds at least 8 bytes of pixels or labels instead of 7",
    ),
    "zeros behind an idx file": (
        lambda place: extended(place / "a.gz", gzip.compress(struct.pack(">HBBI", 0, 8, 1, 7))),
        lambda path: upstream.read_idx(path, (7,)),
        "it has 2,147,483,648 bytes for 15",
    ),
    "a text that waits": (
        lambda place: waits(place / "a.txt"),
        read_text,
        "not a regular file",
    ),
    "a scale of 0": (
        lambda place: described(place, scale=0),
        store.read_prepared,
        "is damaged .'scale' of its description is 0",
    ),
    "no name": (
        lambda place: described(place, name=None),
        store.read_prepared,
        "is damaged .'name' of its description is None",
    ),
    "a file in a tar archive": (
        lambda place: tarred(place / "a.tgz", ("a.wav", tarfile.REGTYPE, 3 * GIB)),
        in_archive,
        "'a.wav' has 3,221,225,472 bytes, but 268,435,456 at most",
    ),
    "a header in a tar archive": (
        lambda place: tarred(place / "a.tgz", ("a", tarfile.XHDTYPE, 2**27)),
        in_archive,
        "it has a header of 134,217,728 bytes",
    ),
    "a long name in a tar archive": (
        lambda place: tarred(place / "a.tgz", ("a", tarfile.GNUTYPE_LONGNAME, 2**27)),
        in_archive,
        "it has a header of 134,217,728 bytes",
    ),
    "a negative size in a tar archive": (
        lambda place: tarred(
            place / "a.tgz", ("a", tarfile.REGTYPE, 0), ("b", tarfile.REGTYPE, -1024)
        ),
        in_archive,
        "'b' has a size that cannot be right|it has a size that cannot be right",
    ),
    "many files in a tar archive": (
        lambda place: tarred(place / "a.tgz", *[("a", tarfile.REGTYPE, 0)] * 6_000),
        in_archive,
        r"bytes hold more than 4,\d{3} files",
    ),
    "a cut tar archive": (
        lambda place: tarred(place / "a.tgz", ("a", tarfile.REGTYPE, 5_000)),
        in_archive,
        "it ends within 'a'",
    ),
    "a zip file of many bytes": (
        lambda place: zipped(place / "a.zip", "a", bytes(2**22), declared=GIB),
        in_archive,
        "its files have 1,073,741,824 bytes, but",
    ),
    "a zip file of bzip2": (  # one block of which may become any number of bytes
        lambda place: zipped(place / "a.zip", "a", bytes(99), way=zipfile.ZIP_BZIP2),
        in_archive,
        "'a' is compressed in an unknown way",
    ),
    "an archive that waits": (
        lambda place: waits(place / "a.tar"),
        in_archive,
        "not a regular file",
    ),
    "lengths of other sounds": (sounds, read_recordings, "its lengths are not those of its sounds"),
}


@needs_linux
@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_in_one_sentence(tmp_path, name):
    """Fails if the check that the message names is left out."""
    make, read, says = HOSTILE[name]
    found = make(tmp_path)
    with little(), pytest.raises((UserError, ValueError), match=says) as caught:
        read(found)
    assert "\n" not in str(caught.value)


@needs_linux
def test_a_storage_is_read_once(tmp_path):
    """Fails if each of its 400 tensors reads it, which takes 1.6 GiB."""
    path = one_storage(tmp_path)
    with little():
        assert len(read_torch(path)) == 400


def test_arrays_come_back_as_numpy_wrote_them(tmp_path):
    """Fails if the order, the dtype or the size of an array is mistaken."""
    wanted = {
        "c": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "scalar": np.float32(3),
        "empty": np.zeros((0, 4)),
        "text": np.array("zero\n"),
        "bool": np.array([True, False]),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **wanted)
        for found in (read_npz(tmp_path / "a.npz"), read_npz((tmp_path / "a.npz").read_bytes())):
            assert set(found) == set(wanted)
            for name, array in found.items():
                np.testing.assert_array_equal(array, wanted[name], strict=True)
    np.save(tmp_path / "a.npy", wanted["fortran"])
    np.testing.assert_array_equal(read_npy(tmp_path / "a.npy"), wanted["fortran"], strict=True)


@needs_linux
def test_a_sparse_file_and_a_link_in_a_tar_archive_are_left_out(tmp_path):
    """Fails if the holes of 8 GiB are filled, or if a link stands for another file."""
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        whole, sparse, link = (tarfile.TarInfo(name) for name in ("whole", "sparse", "link"))
        whole.size, sparse.type = 3, tarfile.GNUTYPE_SPARSE
        link.type, link.linkname = tarfile.SYMTYPE, "whole"
        archive.addfile(whole, io.BytesIO(b"abc"))
        archive.addfile(sparse)
        archive.addfile(link)
    content = bytearray((tmp_path / "a.tar").read_bytes())
    at = content.index(b"sparse")
    content[at + 483 : at + 495] = b"%011o\0" % (8 * GIB - 1)  # its size with the holes
    content[at + 148 : at + 156] = checksum(bytes(content[at : at + 512]))
    (tmp_path / "a.tar").write_bytes(bytes(content))
    with little():
        assert in_archive(tmp_path / "a.tar") == {"whole": b"abc"}
