"""Tests that damaged and hostile files are refused in one sentence, and run no code.

Every format is cut at many lengths, and many of its bytes are changed. Such a file may still be
readable, since a changed number is a number, but reading may raise nothing but UserError.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest

from aejax import interop
from aejax.dictionaries.plain import Plain
from aejax.errors import UserError
from aejax.interop.archive import read_torch
from tests.interop import cases
from tests.interop.formats_test import DICTIONARIES, gemma_2, learned, openai, sparsify
from tests.interop.saelens_test import written

# A damaged program may hold strings of old protocols, for whose escapes Python warns.
pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")


def gemma_1(folder):
    w = cases.weights()
    names = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
    np.savez_compressed(folder / "params.npz", **{name: w[name] for name in names})


FORMATS = {
    "saelens": lambda folder: written(folder, "jumprelu"),
    "gemma 1": gemma_1,
    "gemma 2": lambda folder: gemma_2(folder, skip=True),
    "openai": lambda folder: openai(folder, "TopK", {"k": 3}),
    "sparsify": lambda folder: sparsify(folder, skip_connection=True),
    "dictionary_learning": lambda folder: learned(
        folder, "AutoEncoderTopK", DICTIONARIES["AutoEncoderTopK"][0]
    ),
}


def attempt(folder):
    """Returns whether the file can be read; any error but UserError fails the test."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read = interop.load(folder)
    except UserError as error:
        return not is_sentence(error)
    return isinstance(read, Plain)


def is_sentence(error):
    """Returns whether a message is one line that fits a terminal."""
    assert "\n" not in str(error)
    assert len(str(error)) < 600
    return True


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_files(tmp_path, kind):
    """Fails if a short tensor is filled up, or if the own error of a format is raised."""
    FORMATS[kind](tmp_path)
    assert attempt(tmp_path)
    chance = random.Random(0)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        lengths = {0, 1, 8, len(whole) - 1} | {chance.randrange(len(whole)) for _ in range(40)}
        for length in lengths:
            path.write_bytes(whole[:length])
            assert not attempt(tmp_path), (path.name, length)
        path.write_bytes(whole)


@pytest.mark.parametrize("kind", FORMATS)
def test_changed_bytes(tmp_path, kind):
    """Fails if an error that a damaged header causes is not expected."""
    FORMATS[kind](tmp_path)
    chance = random.Random(1)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for _ in range(150):
            # Headers are at the two ends of a file, so most changes are made there.
            at = chance.choice(
                (chance.randrange(len(whole)), chance.randrange(min(700, len(whole))))
            )
            damaged = bytearray(whole)
            damaged[at] ^= 1 << chance.randrange(8)
            if chance.random() < 0.3:
                damaged[-1 - chance.randrange(min(300, len(whole)))] ^= 0xFF
            path.write_bytes(bytes(damaged))
            attempt(tmp_path)
        path.write_bytes(whole)


def test_changed_programs(tmp_path):
    """The pickle inside a .pt file is changed, with a matching checksum of the zip."""
    tensors = {"encoder.weight": cases.weights()["W_enc"].T, "activation": {"k": 3}}
    storages = []
    program = b"\x80\x02" + cases._pickled(tensors, storages) + b"."
    chance = random.Random(2)
    for _ in range(3000):
        damaged = bytearray(program)
        for _ in range(chance.choice((1, 1, 2, 5))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        cases.write_archive(tmp_path / "ae.pt", bytes(damaged), storages)
        try:
            read_torch(tmp_path / "ae.pt")
        except UserError as error:
            is_sentence(error)


def hostile(marker):
    """Makes programs that would write a file if they ran, one for each way to call a function."""
    run = f"cposix\nsystem\n(X{chr(len(marker) + 6)}\0\0\0touch {marker}tR.".encode()
    return {
        "reduce": b"\x80\x02" + run,
        "stack global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02ls\x85R.",
        "instance": b"(X\x02\0\0\0lsiposix\nsystem\n.",
        "object": b"(cposix\nsystem\nX\x02\0\0\0lso.",
        "new object": b"\x80\x02cposix\nsystem\nX\x02\0\0\0ls\x85\x81.",
        "extension": b"\x80\x02\x82\x01.",
        "attribute": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
        "module": b"\x80\x02cbuiltins\neval\nX\x01\0\0\01\x85R.",
        "persistent": b"\x80\x02Pls\n.",
        "storage called": b"\x80\x02ctorch\nFloatStorage\n)R.",
        "dictionary called": b"\x80\x02ccollections\nOrderedDict\nX\x01\0\0\0a\x85R.",
    }


@pytest.mark.parametrize("way", hostile("x"))
def test_hostile_pickles_are_not_run(tmp_path, way):
    """Fails if a name is looked up: the marker file then exists, or os.system's result is
    returned.
    """
    marker = tmp_path / "ran"
    program = hostile(str(marker))[way]
    archive, plain = tmp_path / "autoencoder.pt", tmp_path / "plain.pt"
    cases.write_archive(archive, program)
    plain.write_bytes(program)
    for path in (archive, plain):
        with pytest.raises(UserError, match=path.name) as caught:
            interop.load(path)
        assert "\n" not in str(caught.value)
    assert not marker.exists()


NAME = b"X\x0e\0\0\0encoder.weight"
STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\n"
TUPLES = {
    "nested": b")" + b"\x85" * 1_000_000,
    "shared": b")q\0" + b"".join(b"h%c\x86q%c" % (i, i + 1) for i in range(200)),
}
PLACES = {  # the bytes before the tuple, and those after it
    "key": (b"\x80\x02}", b"Ns."),
    "tensor": (b"\x80\x02}" + NAME, b"s."),
    "activation": (b"\x80\x02}" + NAME + b"NsX\x0a\0\0\0activation", b"s."),
    "module": (b"\x80\x04}" + NAME, b"\x8c\x01a\x93s."),
    "storage": (b"\x80\x02}" + NAME + STORAGE, b"X\x03\0\0\0cpuK\x01tQs."),
    "size": (b"\x80\x02}" + NAME + STORAGE + b"X\x01\0\0\0aX\x03\0\0\0cpu", b"tQs."),
}
READ = """
import sys, aejax.interop
for path in sys.argv[1:]:
    try:
        aejax.interop.load(path)
    except aejax.errors.UserError as error:
        print(error)
"""


def test_tuples_in_tuples(tmp_path):
    """Fails if a tuple is hashed, which kills the interpreter, or formatted, which never ends.

    The file is therefore read in a process of its own, with a time limit.
    """
    paths = []
    for kind, tuples in TUPLES.items():
        for place, (before, after) in PLACES.items():
            paths.append(tmp_path / f"{place} {kind}.pt")
            cases.write_archive(paths[-1], before + tuples + after)
    done = subprocess.run(
        [sys.executable, "-c", READ, *paths], check=True, capture_output=True, text=True, timeout=60
    )
    for path, line in zip(paths, done.stdout.splitlines(), strict=True):
        assert line.startswith(str(path))
        assert "a tuple contains more than tensors need" in line


@pytest.mark.parametrize(
    ("key", "said"),
    [(b")", "of type tuple"), (b"K\x03", "3"), (b"N", "None"), (b"]", "of type list")],
)
def test_keys_that_are_no_strings(tmp_path, key, said):
    """Fails if any key is accepted: colliding integers take time that grows with their square."""
    cases.write_archive(tmp_path / "a.pt", b"\x80\x02}X\x01\0\0\0a}" + key + b"Nss.")
    with pytest.raises(UserError, match=f"key is .*{said}, but the names of tensors are strings"):
        read_torch(tmp_path / "a.pt")


def test_a_shape_of_more_axes_than_arrays_have(tmp_path):
    """Fails if tuples have any length: the product of such a shape is a number of megabytes."""
    w = cases.weights()["b_enc"]
    storages = []
    program = cases._pickled({"a": w}, storages)
    shape = b"(J" + len(w).to_bytes(4, "little") + b"t"
    long = b"(" + (b"\x8a\xff" + b"\x7f" * 255) + b"q\x01" + b"h\x01" * 20_000 + b"t"
    cases.write_archive(
        tmp_path / "a.pt", b"\x80\x02" + program.replace(shape, long) + b".", storages
    )
    with pytest.raises(UserError, match="a tuple contains more than tensors need"):
        read_torch(tmp_path / "a.pt")


def test_many_marks(tmp_path):
    """Fails if each mark is searched from the bottom of the stack, which takes minutes here."""
    cases.write_archive(tmp_path / "a.pt", b"\x80\x02" + b")" * 50_000 + b"(t" * 50_000 + b".")
    with pytest.raises(UserError, match=r"a\.pt contains a tuple instead of a state dictionary"):
        read_torch(tmp_path / "a.pt")


def deep(kind):
    """Pickles a value of the state dictionary that is nested as deep as the interpreter's stack."""
    if kind == "list":
        return b"]" * 50_000 + b"a" * 49_999
    return b"}X\x01\0\0\0a" * 50_000 + b"N" + b"s" * 50_000


@pytest.mark.parametrize("kind", ["list", "dictionary"])
@pytest.mark.parametrize("name", [b"encoder.weight", b"activation", b"activation_state_dict"])
def test_deep_containers_are_not_formatted(tmp_path, kind, name):
    """Fails with RecursionError, or never ends, if a message formats the container."""
    w = cases.weights()
    storages = []
    named = b"X" + len(name).to_bytes(4, "little") + name + deep(kind) + b"s"
    state = {"encoder.weight": w["W_enc"].T, "activation": "TopK"}
    program = b"\x80\x02" + cases._pickled(state, storages) + named + b"."
    cases.write_archive(tmp_path / "autoencoder.pt", program, storages)
    with pytest.raises(UserError, match=name.decode() + "' in|'k' in") as caught:
        interop.load(tmp_path / "autoencoder.pt")
    is_sentence(caught.value)


@pytest.mark.parametrize(
    "state",
    [
        {"activation": cases.draw(3)},
        {"activation_state_dict": {"k": 3, "postact_fn": cases.draw(3)}},
    ],
    ids=["activation", "postact_fn"],
)
def test_arrays_in_the_place_of_strings(tmp_path, state):
    """Fails if an array is compared with a string, which numpy does for each element."""
    state = {"activation": "TopK", "encoder.weight": cases.weights()["W_enc"].T, **state}
    cases.write_torch(tmp_path / "autoencoder.pt", state)
    with pytest.raises(UserError, match="is an array of float32"):
        interop.load(tmp_path / "autoencoder.pt")


def test_headers_that_are_no_python(tmp_path):
    """Fails if the error of numpy's second attempt at an npy header is raised."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': ((3,}".ljust(117) + b"\n"
    npy = b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + bytes(12)
    with zipfile.ZipFile(tmp_path / "params.npz", "w") as archive:
        archive.writestr("W_enc.npy", npy)
    with pytest.raises(UserError, match=r"params\.npz cannot be read .*: fetch it again"):
        interop.load(tmp_path)


@pytest.mark.parametrize("name", ["params.npz", "autoencoder.pt"])
def test_damage_in_another_compression(tmp_path, name):
    """Fails if one of zip's compressions raises an unexpected error."""
    for compression in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(tmp_path / name, "w", compression) as archive:
            archive.writestr("a/data.pkl" if name.endswith("pt") else "W_enc.npy", b"x" * 1000)
        damaged = bytearray((tmp_path / name).read_bytes())
        damaged[45:60] = bytes(byte ^ 0x5A for byte in damaged[45:60])
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(UserError, match=name):
            interop.load(tmp_path / name)


def test_numbers_of_thousands_of_digits(tmp_path):
    """Fails if a message formats them, for which Python raises a ValueError."""
    digits = 10**4000
    for config in (
        {"d_in": digits},
        {"num_latents": 0, "expansion_factor": digits, "d_in": digits},
    ):
        sparsify(tmp_path, **config)
        with pytest.raises(UserError, match="a number of more than 64 bits") as caught:
            interop.load(tmp_path)
        is_sentence(caught.value)
    (tmp_path / "sae").mkdir()
    for version in ("1" * 5000, [["6"]], {"6": 0}):
        folder, _ = written(tmp_path / "sae", "topk", metadata={"sae_lens_version": version})
        assert attempt(folder)


def test_objects_in_npz_are_not_read(tmp_path):
    """Fails with allow_pickle=True: the object's __reduce__ then writes the marker file."""
    marker = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    np.savez(tmp_path / "params.npz", W_enc=np.array([Hostile()], object))
    with pytest.raises(UserError, match=r"params\.npz"):
        interop.load(tmp_path)
    assert not marker.exists()


def test_tensors_beyond_their_storage(tmp_path):
    """Shapes, strides and offsets reach beyond the stored bytes, or far beyond memory."""
    w = cases.weights()["b_enc"]
    storages = []
    program = cases._pickled({"a": w}, storages)
    shape = b"(J" + len(w).to_bytes(4, "little") + b"t"
    offset = b"QJ\0\0\0\0"
    for old, new in (
        (shape, b"(J\xff\xff\xff\x7ft"),
        (shape, b"(J\xff\xff\xff\xfft"),
        (shape, b"(J\x0e\0\0\0J\xff\xff\xff\x7ft"),
        (b"(J\x01\0\0\0t", b"(J\xff\xff\xff\xfft"),
        (b"(J\x01\0\0\0t", b"(J\x05\0\0\0t"),
        (b"(J\x01\0\0\0t", b"(J\0\0\0\0t"),
        (offset, b"QJ\x01\0\0\0"),
        (offset, b"QJ\xff\xff\xff\xff"),
    ):
        assert old in program
        cases.write_archive(
            tmp_path / "a.pt", b"\x80\x02" + program.replace(old, new) + b".", storages
        )
        if new == b"(J\0\0\0\0t":  # a stride of 0 repeats one number and stays inside
            assert read_torch(tmp_path / "a.pt")["a"].shape == w.shape
            continue
        with pytest.raises(UserError, match=r"a\.pt"):
            read_torch(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"3", b"\xff\xfe", b"[" * 100_000, b"{}"])
def test_configurations_that_are_no_objects(tmp_path, content):
    for kind, name in (("saelens", "cfg.json"), ("sparsify", "cfg.json")):
        folder = tmp_path / kind
        folder.mkdir()
        FORMATS[kind](folder)
        (folder / name).write_bytes(content)
        assert not attempt(folder)


def test_a_zip_of_something_else(tmp_path):
    shutil.make_archive(str(tmp_path / "autoencoder"), "zip", tmp_path)
    os.rename(tmp_path / "autoencoder.zip", tmp_path / "autoencoder.pt")
    with pytest.raises(UserError, match="torch"):
        interop.load(tmp_path / "autoencoder.pt")
    (tmp_path / "cfg.json").write_text(json.dumps({}))
    cases.write_torch(tmp_path / "ae.pt", {"bias": cases.draw(3)})
    with pytest.raises(UserError, match=r"config\.json"):
        interop.load(tmp_path)
